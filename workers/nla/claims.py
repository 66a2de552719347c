"""What a reading claims, and the sentence that says it.

    An answer about medicine (headaches), touching on self-harm. Expects " to". Reads "It's quite normal to"

A pair with labels (`workers.nla.checkpoint.labels`) writes the first sentence from them; the AV continues
behind `Expects "` and ends before the read token, which is known. The closing quote is for the reader
alone: the AR's prompt ends on the read token.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_CONTINUATION = re.compile(r'^(?P<expects>.+?)"\. Reads "(?P<quote>.*)$', re.DOTALL)
EXPECTS, READS = ' Expects "', '". Reads "'


class VectorLabels(NamedTuple):
    """What the label head is sure of about one vector; None and empty where it abstains."""

    register: str
    area: str | None
    topic: str | None
    kinds: tuple[str, ...]
    areas: Mapping[str, float]
    """Probability of every area, the named one or not: requests pool them."""
    kind_scores: Mapping[str, float]
    """Probability of every kind."""


class Continuation(NamedTuple):
    """What the AV wrote behind the first sentence."""

    expects: str
    """The token that the vector makes likeliest next."""
    quote: str
    """The words before the read token."""


def first_sentence(labelled: VectorLabels) -> str:
    """Say register, theme and kinds: "An answer about medicine, touching on self-harm."."""
    theme = f" about {labelled.area}" if labelled.area else ""
    if labelled.area and labelled.topic and labelled.topic != labelled.area:
        theme += f" ({labelled.topic})"
    touched = f", touching on {_join(labelled.kinds)}" if labelled.kinds else ""
    return f"{labelled.register[0].upper()}{labelled.register[1:]}{theme}{touched}."


def explanation(sentence: str, continuation: Continuation) -> str:
    """Return the AR's text of a reading; the read token follows it."""
    return f"{sentence}{EXPECTS}{continuation.expects}{READS}{continuation.quote}"


def shown(text: str, token: str) -> str:
    """Return a reading as people see it: the read token ends the quote."""
    return f'{text}{token}"'


def parse_continuation(answer: str) -> Continuation | None:
    """Split what the AV wrote; None where it lost the format."""
    found = _CONTINUATION.match(answer)
    return None if found is None else Continuation(found["expects"], found["quote"])


def _join(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
