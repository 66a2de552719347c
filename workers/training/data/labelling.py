"""The labels of a run's chats, computed from their texts or read from a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.training.data import chats, positions
from workers.training.data.collect import Chat
from workers.training.data.labels import Labeller, Labels

FILE = "text_labels.safetensors"
"""Name of the labels' file in a run's folder; a bundle uses it instead of texts and embedder."""
_COLUMNS = ("documents", "positions")


class TextLabelling:
    """Labels computed from the chats' texts."""

    def __init__(self, labeller: Labeller, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> None:
        """`rows` must be all chats of the run, in order."""
        self._labeller = labeller
        self._tokenizer = tokenizer
        self._rows = rows
        self._shared = positions.shared_prefix([row["tokens"] for row in rows])
        self._closing = len(chats.turn_end(tokenizer))

    def label(self, split: positions.Split, found: Sequence[Chat]) -> Labels:  # noqa: ARG002  # a stored label depends on it
        """Label each position from the text up to it, which is what the model has seen."""
        texts, subjects, requests = [], [], []
        for chat in found:
            subject_tokens = chat.prompt_tokens - self._closing
            for position in chat.chosen:
                end = position + 1
                texts.append(self._decode(chat.tokens[self._shared : end]))
                subject = chat.tokens[self._shared : max(min(end, subject_tokens), self._shared + 1)]
                subjects.append(self._decode(subject))
                requests.append(end <= chat.prompt_tokens)
        return self._labeller.label(texts, subjects, requests)

    def answers(self, documents: Sequence[int]) -> dict[int, int]:
        """Return the area of each chat's answer, labelled without the prompt, by document."""
        rows = [self._rows[document] for document in documents]
        texts = [self._decode(row["tokens"][row["prompt_tokens"] :]) for row in rows]
        labels = self._labeller.label(texts, texts, [False] * len(texts))
        return dict(zip(documents, labels.areas.argmax(axis=1).tolist(), strict=True))

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class StoredLabelling:
    """Labels from a file written by `store`."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        from safetensors.numpy import load_file

        self._arrays = load_file(path)

    def label(self, split: positions.Split, found: Sequence[Chat]) -> Labels:
        """Return a split's labels; raises ValueError when they belong to other positions."""
        for name, expected in zip(_COLUMNS, places(found), strict=True):
            if not np.array_equal(self._arrays[f"{split}.{name}"], expected):
                raise ValueError(f"{FILE}: the {split} labels are those of other {name}; pack them again")
        return Labels(*(self._arrays[f"{split}.{name}"] for name in Labels._fields))

    def answers(self, documents: Sequence[int]) -> dict[int, int]:
        """Return the area of each chat's answer, labelled without the prompt, by document."""
        areas = dict(
            zip(
                self._arrays["answers.documents"].tolist(),
                self._arrays["answers.areas"].tolist(),
                strict=True,
            )
        )
        return {document: areas[document] for document in documents}


def store(
    path: Path, labels: Mapping[positions.Split, tuple[Sequence[Chat], Labels]], answers: dict[int, int]
) -> None:
    """Write every split's labels, and the areas of the held-out answers by document."""
    from safetensors.numpy import save_file

    arrays = {
        "answers.documents": np.array(list(answers), np.int64),
        "answers.areas": np.array(list(answers.values()), np.int64),
    }
    for split, (chats_of_split, known) in labels.items():
        columns = {**dict(zip(_COLUMNS, places(chats_of_split), strict=True)), **known._asdict()}
        arrays |= {f"{split}.{name}": np.ascontiguousarray(column) for name, column in columns.items()}
    save_file(arrays, path)


def places(chats_of_split: Sequence[Chat]) -> tuple[Any, Any]:
    """Return the documents and positions of all chosen positions, (n,) each."""
    return (
        np.array([chat.document for chat in chats_of_split for _ in chat.chosen], np.int64),
        np.array([place for chat in chats_of_split for place in chat.chosen], np.int64),
    )
