"""The decoder port, and the values that cross it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

PositionClass = Literal["template", "prompt", "answer"]
"""Classes within which readings are compared: chat-template tokens, the client's words, the model's own."""


class GivenFacts(NamedTuple):
    """Facts from the records of a batch, one entry per vector."""

    token_ids: Sequence[int]
    """The read tokens."""
    phases: Sequence[str]
    """`prefill` or `decode`."""


class Claims(NamedTuple):
    """The parts of one reading."""

    register: str
    area: str | None
    """None where the decoder abstains."""
    topic: str | None
    """None where the decoder abstains."""
    kinds: tuple[str, ...]
    expects: str | None
    """The expected next token; None where the AV broke the format."""
    expects_agreement: float | None
    """Share of candidates that expect the same token; None for a single candidate."""
    areas: Mapping[str, float]
    """Area probabilities of at least 0.01, for pooling over a request."""
    kind_scores: Mapping[str, float]
    """Kind probabilities of at least 0.01."""


class Reading(NamedTuple):
    """One vector's explanation, with its fidelity."""

    text: str
    well_formed: bool
    """Whether the AV kept its format; otherwise `text` is its whole output."""
    cosine: float
    """Cosine of the vector and the vector rebuilt from the text."""
    fve: float
    """Fraction of variance explained against predicting the calibration mean; at most 1."""
    fve_beyond_token: float | None
    """1 - (1 - fve) / (1 - fve of the token's mean); None when the calibration has no token means."""
    verified: bool
    """Whether the fidelity exceeds `DecoderIdentity.threshold` of the position class. Verified does not
    mean that a claim is true."""
    position_class: PositionClass
    claims: Claims | None
    """None for a decoder without labels."""
    candidates: int
    """Number of candidates, of which this is the best."""
    margin: float | None
    """Cosine less the second-best candidate's; None for a single candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderIdentity:
    """A decoder's name, version and calibration."""

    name: str
    digest: str
    """SHA-256 over weights, meta and calibration."""
    model: str
    """The audited model, as in `base_checkpoint`."""
    layer: int
    """K: vectors are outputs of block K."""
    d_model: int
    fve_baseline: float
    shuffled_fve_p95: float
    """The largest of `verified_above`; 1.0, which no reading exceeds, for an uncalibrated decoder."""
    calibration_n: int
    """Number of readings behind the calibration; 0 for an uncalibrated decoder."""
    verified_above: Mapping[PositionClass, float] = field(default_factory=dict)
    """Threshold by position class; a missing class uses `shuffled_fve_p95`."""
    candidates: int = 1
    """Candidates per vector that the thresholds were measured with."""
    card: dict[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What else texts depend on: how candidates are drawn, and what the halves run on."""

    def threshold(self, position_class: PositionClass) -> float:
        """Return the threshold for `fve_beyond_token`, or for `fve` without token means; at least 0.

        A weak pair's nulls are all negative. A lower threshold would then verify readings that predict the
        vector worse than the mean does.
        """
        return max(self.verified_above.get(position_class, self.shuffled_fve_p95), 0.0)

    @property
    def is_calibrated(self) -> bool:
        """Whether `verified` can ever be true."""
        return self.calibration_n > 0


class Decoder(Protocol):
    """Turns vectors into readings."""

    @property
    def identity(self) -> DecoderIdentity:
        """The decoder's name, version and calibration."""
        ...

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading per row of (n, d_model), in order.

        Raises ValueError on another width, on zero or non-finite rows, and on unknown tokens.
        """
        ...

    def token_text(self, token_id: int) -> str:
        """Return the text of a token of the audited model."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


def applied(measured: Mapping[PositionClass, float]) -> dict[PositionClass, float]:
    """Return the thresholds that readings are verified by, from those that were measured.

    The template's is no higher than the prompt's: a client can end his words with one of its tokens, and
    must not come out of the verified readings by that.
    """
    thresholds = dict(measured)
    if "template" in measured and "prompt" in measured:
        thresholds["template"] = min(measured["template"], measured["prompt"])
    return thresholds
