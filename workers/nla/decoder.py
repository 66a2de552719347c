"""The port that the worker reads vectors through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

PositionClass = Literal["template", "prompt", "answer"]
"""Kinds of positions whose readings are compared with each other: special tokens, the client's words and
the model's own."""


class GivenFacts(NamedTuple):
    """What the record tells about every vector of a batch besides the vector: nothing to guess."""

    token_ids: Sequence[int]
    """The token at whose position each vector was read."""
    phases: Sequence[str]
    """`prefill` or `decode`."""


class Claims(NamedTuple):
    """What one reading says, in parts."""

    register: str
    area: str | None
    """The theme; None where the decoder is not sure."""
    topic: str | None
    kinds: tuple[str, ...]
    expects: str | None
    """The token that it expects next; None where the AV broke the format."""
    expects_agreement: float | None
    """Share of the candidates that expect the same; None for a single one."""
    areas: Mapping[str, float]
    """Probabilities of areas, those of at least 0.01: requests pool them."""
    kind_scores: Mapping[str, float]
    """Probabilities of kinds, those of at least 0.01."""


class Reading(NamedTuple):
    """One vector's explanation and how far it can be trusted."""

    text: str
    well_formed: bool
    """Whether the decoder kept its own format; otherwise `text` is all that it said."""
    cosine: float
    """Of the vector with the one rebuilt from the text alone."""
    fve: float
    """Fraction of variance explained against predicting the calibration mean; at most 1."""
    fve_beyond_token: float | None
    """The share of what the token's mean leaves open that the text explains: 1 - (1 - fve) / (1 - fve of
    the token's mean); None for a decoder whose calibration knows no token means."""
    verified: bool
    """Whether its figure is above the threshold of its position class; see `DecoderIdentity.threshold`.
    Never: that a claim is true."""
    position_class: PositionClass
    claims: Claims | None
    """None for a decoder without labels."""
    candidates: int
    """How many readings of this vector were written; this is the one that rebuilds it best."""
    margin: float | None
    """Its cosine less that of the second best; None for a single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderIdentity:
    """Which decoder, at which version, with which calibration."""

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
    """The largest of `verified_above`; 1.0, which no reading exceeds, while the decoder is uncalibrated."""
    calibration_n: int
    """Readings that the calibration stands on; 0 for an uncalibrated decoder."""
    verified_above: Mapping[PositionClass, float] = field(default_factory=dict)
    """What a reading must exceed, by position class; empty for `shuffled_fve_p95` everywhere."""
    candidates: int = 1
    """Readings of every vector that the thresholds were measured with."""
    card: dict[str, Any] = field(default_factory=dict)

    def threshold(self, position_class: PositionClass) -> float:
        """Return what `fve_beyond_token`, or `fve` where token means are not known, must exceed.

        Never below 0: a weak pair's nulls all lie there, and beating them while predicting worse than the
        mean would verify a text that says less than nothing.
        """
        return max(self.verified_above.get(position_class, self.shuffled_fve_p95), 0.0)

    @property
    def is_calibrated(self) -> bool:
        """Whether `verified` can ever be true."""
        return self.calibration_n > 0


class Decoder(Protocol):
    """Reads vectors."""

    @property
    def identity(self) -> DecoderIdentity:
        """Say which decoder this is."""
        ...

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading a row of (n, d_model), in order; ValueError on rows that nothing can read."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return the text of a token of the audited model."""
        ...

    def close(self) -> None:
        """Free everything that was loaded."""
        ...
