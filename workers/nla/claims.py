"""The text format of a reading, and its parts.

    An answer about medicine (headaches), touching on self-harm. Expects " to". Reads "It's quite normal to"

For a pair with labels (`workers.nla.checkpoint.labels`) the label head determines the first sentence. The
AV continues after `Expects "` and stops before the read token, which the record gives. Only people see the
closing quote: the AR's prompt ends with the read token.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_CONTINUATION = re.compile(r'^(?P<expects>.+?)"\. Reads "(?P<quote>.*)$', re.DOTALL)
EXPECTS, READS = ' Expects "', '". Reads "'


class VectorLabels(NamedTuple):
    """The labels that the label head names for one vector; None or empty where it abstains."""

    register: str
    area: str | None
    topic: str | None
    kinds: tuple[str, ...]
    areas: Mapping[str, float]
    """Probability of every area, named or not, for pooling over a request."""
    kind_scores: Mapping[str, float]
    """Probability of every kind."""


class Continuation(NamedTuple):
    """The AV's text after the first sentence."""

    expects: str
    """The expected next token."""
    quote: str
    """The words before the read token."""


def first_sentence(labelled: VectorLabels) -> str:
    """Return the sentence for the labels, such as "An answer about medicine, touching on self-harm."."""
    theme = f" about {labelled.area}" if labelled.area else ""
    if labelled.area and labelled.topic and labelled.topic != labelled.area:
        theme += f" ({labelled.topic})"
    touched = f", touching on {_join(labelled.kinds)}" if labelled.kinds else ""
    return f"{labelled.register[0].upper()}{labelled.register[1:]}{theme}{touched}."


def explanation(sentence: str, continuation: Continuation) -> str:
    """Return a reading as the AR gets it, without the read token that follows."""
    return f"{sentence}{EXPECTS}{continuation.expects}{READS}{continuation.quote}"


def shown(text: str, token: str) -> str:
    """Return a reading as people see it, with the read token and the closing quote."""
    return f'{text}{token}"'


def parse_continuation(answer: str) -> Continuation | None:
    """Split the AV's answer; None when the answer breaks the format."""
    match = _CONTINUATION.match(answer)
    return None if match is None else Continuation(match["expects"], match["quote"])


def _join(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
