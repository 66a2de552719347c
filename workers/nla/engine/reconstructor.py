"""The activation reconstructor (AR): rebuilds a vector from text.

The AR consists of blocks 0..K of the audited model without final norm and lm_head, and a square head on
the prompt's last token. Its only input is the text, plus the read token for pairs whose prompt ends with
that token, so the rebuilt vector measures what the text conveys.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.nla.checkpoint.head import load_head
from workers.nla.checkpoint.meta import Meta
from workers.nla.checkpoint.pair import find_head
from workers.nla.checkpoint.text_model import load_blocks
from workers.nla.engine.precision import ProductType, autocast, chooses_bfloat16, halve_products
from workers.nla.engine.prompt import ReconstructionPrompt

_BATCH = 32
_ORDINARY_TEXT = "A letter to a friend about the weather, the garden and a train that came too late."


class Reconstructor:
    """A loaded AR. Not thread-safe."""

    def __init__(
        self,
        checkpoint: Path,
        meta: Meta,
        tokenizer: Any,
        *,
        device: str = "cpu",
        products: ProductType = "float32",
    ) -> None:
        """Check prompt and head, then load the blocks; raises PromptError or MetaError.

        Matrix products of the blocks run in the precision `products`, those of the head in float32.
        """
        self._prompt = ReconstructionPrompt(meta, tokenizer)

        import torch

        self._torch = torch
        self._device = device
        self._head = load_head(find_head(checkpoint), meta.d_model).to(device)
        self._backbone = load_blocks(checkpoint).to(device).eval()
        self._is_halved = chooses_bfloat16(products, device)
        if self._is_halved:
            halve_products(self._backbone)

    @property
    def takes_token(self) -> bool:
        """Whether the AR's prompt contains the read token."""
        return self._prompt.takes_token

    @property
    def facts(self) -> dict[str, Any]:
        """What the choice among candidates depends on besides checkpoint, vector and texts."""
        device = self._device
        name = self._torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        return {"device": name, "products": "bfloat16" if self._is_halved else "float32"}

    def rebuild(self, explanations: Sequence[str], token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the vector rebuilt from each explanation and read token, (n, d_model).

        Only directions are meaningful, not norms.
        """
        sequences = [
            self._prompt.encode(text, token_id)
            for text, token_id in zip(explanations, token_ids, strict=True)
        ]
        # Candidates of one vector are often identical, so each distinct prompt runs once.
        places = {ids: place for place, ids in enumerate(dict.fromkeys(map(tuple, sequences)))}
        distinct = list(places)
        rebuilt = np.empty((len(distinct), self._head.shape[0]), np.float32)
        for rows in batches_by_length(distinct):
            rebuilt[rows] = self._forward([distinct[row] for row in rows])
        return rebuilt[np.array([places[tuple(ids)] for ids in sequences], np.int64)]

    def typical_norm(self) -> float:
        """Return the median norm of block K's output in a short text.

        The AR's blocks are fine-tuned from the audited model's, so the norm approximates that of
        activations. The first token is left out, because its activation is massive.
        """
        states, lengths = self._run([self._prompt.encode(_ORDINARY_TEXT, 0)])
        return float(states[0, 1 : int(lengths[0])].norm(dim=-1).median())

    def check_tokens(self, token_ids: Sequence[int]) -> None:
        """Raise ValueError naming the rows whose token id is out of range.

        On a GPU an out-of-range lookup makes the device unusable for the whole process.
        """
        size = self._backbone.get_input_embeddings().num_embeddings
        bad = [row for row, token_id in enumerate(token_ids) if not 0 <= token_id < size]
        if bad:
            raise ValueError(f"token_ids: rows {bad} are none of the model's {size} tokens")

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the AR's token embeddings, (n, d_model)."""
        with self._torch.inference_mode():
            ids = self._torch.tensor(list(token_ids), dtype=self._torch.long, device=self._device)
            rows: NDArray[np.float32] = self._backbone.get_input_embeddings()(ids).float().cpu().numpy()
        return rows

    def _forward(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        states, lengths = self._run(sequences)
        last = states[self._torch.arange(len(sequences)), lengths - 1]
        vectors: NDArray[np.float32] = (last @ self._head.T).cpu().numpy()
        return vectors

    def _run(self, sequences: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Return block K's outputs, (n, longest, d_model), and the lengths of the sequences, (n,)."""
        torch = self._torch
        # Padding on the right comes after the read token, where causal attention does not look.
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True)
        lengths = torch.tensor([len(ids) for ids in sequences])
        mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        with torch.inference_mode(), autocast(self._device, is_halved=self._is_halved):
            states = self._backbone(
                input_ids=padded.to(self._device), attention_mask=mask.to(self._device), use_cache=False
            ).last_hidden_state
        return states.float(), lengths


def batches_by_length(sequences: Sequence[Sequence[int]], size: int = _BATCH) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, which keeps padding short."""
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
