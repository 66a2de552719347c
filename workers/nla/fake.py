"""A decoder without a model, instant and deterministic, for tests."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workers.nla.decoder import Claims, DecoderIdentity, GivenFacts, PositionClass, Reading

FAKE_P95 = 0.1


def fake_identity(*, model: str = "fake-model", layer: int = 1, d_model: int = 8) -> DecoderIdentity:
    """Return the identity of a calibrated fake decoder."""
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
    """Return a text that is unique to the vector."""
    return f"a state of {hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()[:12]}"


class FakeDecoder:
    """Reads every vector as `text(vector)`, with fixed figures."""

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
        """Set the figures and claims of every reading; ``fve_beyond_token`` defaults to ``fve``."""
        self.identity = identity or fake_identity()
        self._text = text
        self._fve = fve
        self._fve_beyond_token = fve if fve_beyond_token is None else fve_beyond_token
        self._position_class: PositionClass = position_class
        self._claims = claims

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading per row; raises ValueError like the real decoder."""
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
        """Return a placeholder for the token."""
        return f"<{token_id}>"

    def close(self) -> None:
        """Do nothing."""
