"""The explanation that a vector should get: short, one format, most determined part first.

    It has read " cat" after "sat on the" and expects " mat", " floor" or ".". This is an answer about
    pets, touching on medical advice.

Only what the vector can determine is said, because a small model trained on free summaries learns the
format and ignores the vector. Segments keep the exact token ids of what they quote, so that the
verbalizer learns to copy a token, not to spell it.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from workers.training.config import Targets
from workers.training.labels import Taxonomy

Kind = Literal["frame", "last", "text", "next", "register", "topic", "kind"]

FRAME_WEIGHT = 0.2
WEIGHTS: dict[Kind, float] = {
    "frame": FRAME_WEIGHT,
    "last": 4.0,
    "text": 1.0,
    "next": 3.0,
    "register": 1.0,
    "topic": 2.0,
    "kind": 2.0,
}
"""Loss weight of a token by what it says: the frame is learned by itself, the rest is the message."""

OPEN, CLOSE = "<explanation>", "</explanation>"
"""The official format's tags around a verbalizer's explanation."""


class Facts(NamedTuple):
    """What is known about one vector, in words and token ids."""

    context: Sequence[int]
    """The last tokens up to and with the read one."""
    next_tokens: Sequence[int]
    """The model's likeliest next tokens, best first."""
    register: str
    topic: str
    kinds: Sequence[str]


def facts_of(
    taxonomy: Taxonomy,
    context: Sequence[int],
    next_tokens: Sequence[int],
    labels: tuple[int, int, int],
) -> Facts:
    """Return the facts of one sample; `labels` are its topic, register and kinds as stored."""
    topic, register, bits = labels
    kinds = [kind.name for index, kind in enumerate(taxonomy.kinds) if bits >> index & 1]
    return Facts(
        context, next_tokens, taxonomy.register_names[register], taxonomy.topic_names[topic], kinds
    )


class Target(NamedTuple):
    """One explanation as tokens; `text` is what a reader and the reconstructor get."""

    ids: list[int]
    kinds: list[Kind]
    text: str


class TargetWriter:
    """Writes targets in one tokenizer's terms."""

    def __init__(self, tokenizer: Any, config: Targets) -> None:
        """Look up once what every target repeats."""
        self._config = config
        self._tokenizer = tokenizer
        self._special = {
            index: f"[{text.strip('<|>')}]"
            for index, text in zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        }

    def write(self, facts: Facts) -> Target:
        """Describe one vector."""
        before = facts.context[-self._config.context_tokens : -1]
        pieces: list[tuple[Kind, list[int]]] = [
            ("frame", self._encode('It has read "')),
            ("last", self.quote(facts.context[-1])),
            ("frame", self._encode('" after "')),
            *(("text", self.quote(token)) for token in before),
            ("frame", self._encode('" and expects "')),
            *self._quotes(facts.next_tokens[: self._config.next_tokens]),
            ("frame", self._encode('". This is')),
            ("register", self._encode(f" {facts.register}")),
            ("frame", self._encode(" about")),
            ("topic", self._encode(f" {facts.topic}")),
            *self._touches(facts.kinds),
            ("frame", self._encode(".")),
        ]
        ids = [token for _, piece in pieces for token in piece]
        kinds = [kind for kind, piece in pieces for _ in piece]
        return Target(ids, kinds, self._tokenizer.decode(ids).strip())

    def wrap(self, target: Target) -> Target:
        """Put the official tags around a target, as the verbalizer has to write it."""
        opening, closing = self._encode(OPEN), [*self._encode(CLOSE), self._tokenizer.eos_token_id]
        frame: list[Kind] = ["frame"]
        kinds = frame * len(opening) + target.kinds + frame * len(closing)
        return Target([*opening, *target.ids, *closing], kinds, f"{OPEN}{target.text}{CLOSE}")

    def quote(self, token: int) -> list[int]:
        """Return the ids that quote a token: itself, unless it would break the line or end the turn."""
        if token in self._special:
            return self._encode(self._special[token])
        text = self._tokenizer.decode([token])
        escaped = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return [token] if escaped == text else self._encode(escaped)

    def _quotes(self, tokens: Sequence[int]) -> list[tuple[Kind, list[int]]]:
        pieces: list[tuple[Kind, list[int]]] = []
        for index, token in enumerate(tokens):
            if index:
                joint = '" or "' if index == len(tokens) - 1 else '", "'
                pieces.append(("frame", self._encode(joint)))
            pieces.append(("next", self.quote(token)))
        return pieces

    def _touches(self, kinds: Sequence[str]) -> list[tuple[Kind, list[int]]]:
        pieces: list[tuple[Kind, list[int]]] = []
        for index, kind in enumerate(kinds):
            joint = ", touching on" if index == 0 else " and" if index == len(kinds) - 1 else ","
            pieces += [("frame", self._encode(joint)), ("kind", self._encode(f" {kind}"))]
        return pieces

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
