"""The port that the worker reads vectors through."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Reading(NamedTuple):
    """One vector's explanation and how far it can be trusted."""

    text: str
    well_formed: bool
    """Whether the decoder kept its own format; otherwise `text` is all that it said."""
    cosine: float
    """Of the vector with the one rebuilt from the text alone."""
    fve: float
    """Fraction of variance explained against predicting the calibration mean; at most 1."""
    verified: bool
    """Whether `fve` is above the identity's `verified_above`. Never: that a claim is true."""


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
    """1.0, which no reading exceeds, while the decoder is uncalibrated."""
    calibration_n: int
    """Readings that the calibration stands on; 0 for an uncalibrated decoder."""
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def verified_above(self) -> float:
        """Return the FVE that a reading must exceed: that of 95% of shuffled pairs, and that of no text.

        A weak pair's shuffled readings all lie below 0. Beating them while predicting worse than the
        mean would verify a text that says less than nothing.
        """
        return max(self.shuffled_fve_p95, 0.0)

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

    def read(self, vectors: NDArray[np.float32]) -> list[Reading]:
        """Return one reading a row of (n, d_model), in order; ValueError on rows that nothing can read."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return the text of a token of the audited model."""
        ...

    def close(self) -> None:
        """Free everything that was loaded."""
        ...
