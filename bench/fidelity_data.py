"""Load the vectors for bench-fidelity: held-out documents, and captured live chats."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.calibrate.summary import Vectors
from workers.training.data.dataset import Samples

_NEEDED = ("vectors", "documents", "context", "next_tokens")
_LABELS = ("areas", "topic", "register", "kinds")


class SourceError(ValueError):
    """A file is unusable; the message names the file and the column."""


class Source(NamedTuple):
    """One file of vectors."""

    samples: Samples
    has_labels: bool
    has_positions: bool

    @property
    def vectors(self) -> Vectors:
        """The vectors with the facts that records give."""
        samples = self.samples
        return Vectors(
            samples.vectors, samples.documents, samples.tokens, samples.is_answer.astype(np.uint8)
        )

    def take(self, rows: NDArray[np.int64]) -> "Source":
        """Return the rows with the given numbers."""
        return self._replace(samples=self.samples.take(rows))


def load_source(path: Path) -> Source:
    """Read a file like the trainer's `<split>.safetensors`; raises SourceError.

    `phases` may replace `is_answer`. Labels (`areas`, `topic`, `register`, `kinds`), `positions`, `is_real`
    and `tokens` are optional.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: not a safetensors file ({error})") from error
    return to_source(arrays, str(path))


def to_source(arrays: dict[str, NDArray[Any]], name: str) -> Source:
    """Return arrays as a source; SourceError names columns that are missing or have another length."""
    missing = [column for column in _NEEDED if column not in arrays]
    if not {"is_answer", "phases"} & set(arrays):
        missing.append("phases")
    if missing:
        raise SourceError(f"{name}: {', '.join(missing)}: missing")
    n = len(arrays["vectors"])
    wrong = sorted(column for column, array in arrays.items() if len(array) != n)
    if wrong:
        raise SourceError(f"{name}: {', '.join(wrong)}: must have {n} rows, as vectors")
    if "tokens" in arrays and (arrays["tokens"] != arrays["context"][:, -1]).any():
        raise SourceError(f"{name}: tokens: must be the last of each row's context")
    zeros = np.zeros(n, np.int64)
    columns: dict[str, NDArray[Any]] = {
        **dict.fromkeys(("topic", "register", "kinds", "positions", "is_real"), zeros),
        "areas": np.zeros((n, 1), np.float32),
        **{column: array for column, array in arrays.items() if column in Samples.__slots__},
        "vectors": np.asarray(arrays["vectors"], np.float32),
        "next_tokens": np.asarray(arrays["next_tokens"], np.int64).reshape(n, -1),
        "is_answer": np.asarray(arrays.get("is_answer", arrays.get("phases")), np.int64),
    }
    return Source(Samples(**columns), set(_LABELS) <= set(arrays), "positions" in arrays)


def choose_rows(
    documents: NDArray[np.int64], *, limit: int, per_document: int, seed: int = 0
) -> NDArray[np.int64]:
    """Return up to `limit` rows of random documents, up to `per_document` of each, in ascending order.

    Rows of one document are correlated, so few of each are enough. The permutation null needs at least two.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(documents))
    rank_in_document = np.empty(len(documents), np.int64)
    counts: dict[int, int] = {}
    for place, row in enumerate(shuffled.tolist()):
        document = int(documents[row])
        rank_in_document[place] = counts.get(document, 0)
        counts[document] = int(rank_in_document[place]) + 1
    few = shuffled[rank_in_document < per_document]
    names = rng.permutation(np.unique(documents[few]))
    rank = {int(name): index for index, name in enumerate(names)}
    order = np.argsort([rank[int(document)] for document in documents[few]], kind="stable")
    return np.sort(few[order][:limit])
