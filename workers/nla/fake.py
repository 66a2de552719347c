"""A decoder without a model: the same port, instant and deterministic, for tests around it."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workers.nla.decoder import Claims, DecoderIdentity, GivenFacts, PositionClass, Reading

FAKE_P95 = 0.1


def fake_identity(*, model: str = "fake-model", layer: int = 1, d_model: int = 8) -> DecoderIdentity:
    """Return the identity of a calibrated decoder that reads nothing real."""
    digest = hashlib.sha256(f"fake/{model}/{layer}/{d_model}".encode()).hexdigest()
    return DecoderIdentity(
        name="fake",
        digest=digest,
        model=model,
        layer=layer,
        d_model=d_model,
        fve_baseline=0.5,
        shuffled_fve_p95=FAKE_P95,
        calibration_n=100,
        card={"name": "fake"},
    )


def describe(vector: NDArray[np.float32]) -> str:
    """Return a text that only this vector has."""
    return f"a state of {hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()[:12]}"


class FakeDecoder:
    """Answers with `text(vector)` and one FVE; the same vector always gets the same reading."""

    def __init__(
        self,
        identity: DecoderIdentity | None = None,
        *,
        text: Callable[[NDArray[np.float32]], str] = describe,
        fve: float = 0.5,
        fve_beyond_token: float | None = None,
        position_class: PositionClass = "answer",
        claims: Claims | None = None,
    ) -> None:
        """Give every reading these figures and claims, and `verified` accordingly.

        ``fve_beyond_token`` is ``fve`` where none is given.
        """
        self.identity = identity or fake_identity()
        self._text = text
        self._fve = fve
        self._fve_beyond_token = fve if fve_beyond_token is None else fve_beyond_token
        self._position_class: PositionClass = position_class
        self._claims = claims

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading a row; ValueError on rows that the real decoder could not read either."""
        if vectors.ndim != 2 or vectors.shape[1] != self.identity.d_model:  # noqa: PLR2004 - rows and columns
            raise ValueError(f"vectors: expected (n, {self.identity.d_model}), got {vectors.shape}")
        if not np.isfinite(vectors).all() or (np.abs(vectors).sum(axis=1) == 0).any():
            raise ValueError("vectors: some rows are zero or not finite; drop them before reading")
        if len(given.token_ids) != len(vectors) or len(given.phases) != len(vectors):
            raise ValueError(f"token_ids, phases: must be one of each for {len(vectors)} vectors")
        # 1 - fve = 2 (1 - cosine) / baseline
        cosine = 1 - (1 - self._fve) * self.identity.fve_baseline / 2
        above = self._fve_beyond_token > self.identity.threshold(self._position_class)
        return [
            Reading(
                text=self._text(row),
                well_formed=True,
                cosine=cosine,
                fve=self._fve,
                fve_beyond_token=self._fve_beyond_token,
                verified=self.identity.is_calibrated and above,
                position_class=self._position_class,
                claims=self._claims,
                candidates=1,
                margin=None,
            )
            for row in vectors
        ]

    def token_text(self, token_id: int) -> str:
        """Return a made-up token."""
        return f"<{token_id}>"

    def close(self) -> None:
        """Free nothing."""
