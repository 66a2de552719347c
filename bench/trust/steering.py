"""Plant a direction in the audited model's residual stream while the text stays as it is.

A reader of the text cannot tell a planted concept, so a verdict that finds it found it in the activations.
The directions are differences of means (activation addition: Turner et al. 2023, arXiv 2308.10248).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

PLANTED = Path(__file__).with_name("planted.yaml")
_SKIPPED = 4
"""First tokens of every chat that are never steered: they carry massive activations."""
_BATCH = 16
Vectors = NDArray[np.float32]


class Planted(BaseModel):
    """Sentences about each concept, and neutral ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    neutral: Annotated[tuple[str, ...], Field(min_length=2)]
    concepts: Annotated[Mapping[str, Annotated[tuple[str, ...], Field(min_length=2)]], Field(min_length=1)]


class Depths(NamedTuple):
    """Outputs of the steered and of the read block at chosen positions, (positions, d_model) each."""

    steered: Vectors
    read: Vectors


def load_planted(path: Path = PLANTED) -> Planted:
    """Read the sentences; raises pydantic.ValidationError."""
    return Planted.model_validate(yaml.safe_load(path.read_text()))


class Steerer:
    """The model in float32: a direction is added behind one block, states are read behind another."""

    def __init__(self, model: Path, *, steered: int, read: int) -> None:
        """Load the model; ValueError unless ``steered`` lies before ``read``."""
        import torch
        import transformers

        if not 0 <= steered < read:
            raise ValueError(f"steered: {steered} must be a block before {read}, which is read")
        self._torch = torch
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True
        )
        self._model = loaded.eval()
        self._depths = (steered, read)
        self._added: Any = None
        self._model.get_decoder().layers[steered].register_forward_hook(self._add)

    def read(
        self,
        chats: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        added: Vectors | None = None,
    ) -> list[Depths]:
        """Return both blocks' outputs at each chat's positions.

        ``added`` (chats, d_model) is added to the steered block's output at every position of each chat but
        the first.
        """
        found: list[Depths] = []
        for start in range(0, len(chats), _BATCH):
            part = slice(start, start + _BATCH)
            found += self._read(chats[part], positions[part], None if added is None else added[part])
        return found

    def _read(
        self, chats: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], added: Vectors | None
    ) -> list[Depths]:
        torch = self._torch
        rows = [torch.tensor(list(tokens)) for tokens in chats]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._added = None if added is None else torch.from_numpy(np.ascontiguousarray(added))
        with torch.inference_mode():
            states = self._model.get_decoder()(padded, output_hidden_states=True).hidden_states
        # hidden_states[0] is the embedding, so the output of block K is entry K + 1.
        steered, read = (states[block + 1] for block in self._depths)
        return [
            Depths(steered[row, list(places)].numpy(), read[row, list(places)].numpy())
            for row, places in enumerate(positions)
        ]

    def _add(self, _block: Any, _inputs: Any, output: Any) -> Any:
        if self._added is None:
            return output
        states = output[0] if isinstance(output, tuple) else output
        states = states.clone()
        states[:, _SKIPPED:] += self._added[:, None]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    def lens(self, vectors: Vectors) -> NDArray[np.float32]:
        """Return the vocabulary's log-probabilities, read off the vectors (logit lens), (n, vocabulary)."""
        torch = self._torch
        with torch.inference_mode():
            normed = self._model.get_decoder().norm(torch.from_numpy(np.ascontiguousarray(vectors)))
            logits = self._model.get_output_embeddings()(normed)
            return np.asarray(torch.log_softmax(logits, dim=-1).numpy(), np.float32)

    def next_logits(self, chats: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits of each chat's next token, not steered, (chats, vocabulary)."""
        torch = self._torch
        self._added = None
        found = []
        for start in range(0, len(chats), _BATCH):
            rows = [torch.tensor(list(tokens)) for tokens in chats[start : start + _BATCH]]
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            last = torch.tensor([len(row) - 1 for row in rows])
            with torch.inference_mode():
                states = self._model.get_decoder()(padded).last_hidden_state
                logits = self._model.get_output_embeddings()(states[torch.arange(len(rows)), last])
            found.append(logits.numpy())
        return np.concatenate(found)

    def chat_of(self, words: str) -> tuple[list[int], range]:
        """Return the tokens of a request with these words, and the positions of the words in it."""
        mark = "\u241f"
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = text.partition(mark)
        parts = [self.tokenizer.encode(part, add_special_tokens=False) for part in (before, words, after)]
        return [*parts[0], *parts[1], *parts[2]], range(len(parts[0]), len(parts[0]) + len(parts[1]))


def read_words(steerer: Steerer, sentences: Sequence[str]) -> list[Depths]:
    """Return both blocks' outputs at the words of every sentence, sent as a request of its own."""
    chats = [steerer.chat_of(sentence) for sentence in sentences]
    return steerer.read([tokens for tokens, _ in chats], [list(places) for _, places in chats])


def difference_of_means(about: Sequence[Vectors], neutral: Sequence[Vectors]) -> Vectors:
    """Return the unit direction from neutral sentences to those about a concept, (d_model,); pure."""
    means = [np.stack([rows.mean(axis=0) for rows in group]).mean(axis=0) for group in (about, neutral)]
    direction = means[0] - means[1]
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def random_directions(count: int, d_model: int, *, seed: int = 0) -> Vectors:
    """Return random unit directions, (count, d_model); pure."""
    rows = np.random.default_rng(seed).standard_normal((count, d_model))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
