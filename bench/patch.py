"""Patch-back: replace a vector by its rebuilt one, and measure the change in the model's predictions.

A rebuilt vector with the information that the model uses hardly changes the next-token distribution. The
layer's mean direction, patched into the same place, measures the effect of no information.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.fidelity import Interval
from workers.training.measure.evaluation import one_minus_ratio

MEAN = "mean"
"""Name of the ablating replacement, the layer's mean direction."""
_SAME = 0.99
"""Smallest cosine of a vector with the model's output at the same position."""
Values = NDArray[np.float64]


class ChatsError(ValueError):
    """The chats do not belong to the vectors."""


class PatchResult(NamedTuple):
    """The result at one position."""

    seen: NDArray[np.float32]
    """The model's own output of block K, (d,)."""
    kl: Values
    """KL(model || patched) of the next token in nats, (replacements,)."""


class Patcher:
    """The audited model with a hook after block K."""

    def __init__(self, model: Path, *, layer: int) -> None:
        """Load the model in float32."""
        import torch
        import transformers

        self._torch = torch
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True
        )
        self._model = loaded.eval()
        self._model.get_decoder().layers[layer].register_forward_hook(self._replace)
        self._replacements: Any = None
        self._seen: Any = None

    def patch(self, tokens: Sequence[int], replacements: NDArray[np.float32]) -> PatchResult:
        """Replace block K's output at the last token by each of `replacements` (n, d)."""
        torch = self._torch
        self._replacements = torch.from_numpy(np.ascontiguousarray(replacements))
        # The first row is the unpatched reference, in the same batch so that numerics are equal.
        batch = torch.tensor([list(tokens)] * (len(replacements) + 1))
        with torch.inference_mode():
            logits = self._model(batch, use_cache=False, logits_to_keep=1).logits[:, -1].double()
        logs = torch.log_softmax(logits, dim=-1)
        kl = (logs[:1].exp() * (logs[:1] - logs[1:])).sum(dim=-1)
        return PatchResult(self._seen.numpy(), np.asarray(kl.numpy(), np.float64))

    def _replace(self, _block: Any, _inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        self._seen = states[0, -1].clone()
        states = states.clone()
        states[1:, -1] = self._replacements
        return (states, *output[1:]) if isinstance(output, tuple) else states


def replacements(
    vectors: NDArray[np.float32], directions: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """Return directions, each (n, d) or one for all rows, scaled to the norms of `vectors` (n, d); pure."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return {
        name: np.asarray(fidelity.to_unit(np.atleast_2d(rows)) * norms, np.float32)
        for name, rows in directions.items()
    }


def measure_kl(
    patcher: Patcher,
    vectors: NDArray[np.float32],
    prefixes: Sequence[Sequence[int]],
    replaced: Mapping[str, NDArray[np.float32]],
) -> dict[str, Values]:
    """Return the KL of every replacement at every row, (n,) in nats by name.

    `prefixes` are the tokens up to and including each row's read token. Raises ChatsError when the model's
    own vectors differ from `vectors`, so chats, model or layer are not those of the vectors.
    """
    kls: list[Values] = []
    for row, prefix in enumerate(prefixes):
        patched = patcher.patch(prefix, np.stack([rows[row] for rows in replaced.values()]))
        same = float(fidelity.cosine(vectors[row : row + 1], patched.seen[None])[0])
        if same < _SAME:
            raise ChatsError(
                f"chats: row {row}: the model's own vector there has cosine {same:.3f} with the file's;"
                " these are not the chats, the model or the layer that the vectors were read with"
            )
        kls.append(patched.kl)
    return dict(zip(replaced, np.stack(kls, axis=1), strict=True))


def measure_removed(
    kl: Mapping[str, Values], documents: NDArray[np.int64], *, rounds: int
) -> dict[str, Interval]:
    """Return mean KLs, and the share of the ablation's KL that each replacement removes; pure."""
    figures = {
        f"patch_kl_{name}": fidelity.mean_interval(values, documents, rounds=rounds)
        for name, values in kl.items()
    }
    for name, values in kl.items():
        if name != MEAN:
            figures[f"patch_removed_{name}"] = one_minus_ratio(values, kl[MEAN], documents, rounds=rounds)
    return figures
