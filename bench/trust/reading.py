"""Read vectors of many incidents with the demo's decoder, keeping finished parts on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly.score import Places
from workers.nla.decoder import Decoder, GivenFacts, Reading
from workers.training.data.lines import grow_lines, read_lines

_CHUNK = 64


class Incidents(NamedTuple):
    """Vectors of requests, each read at the same number of positions."""

    vectors: NDArray[np.float32]
    """(requests, positions, d_model)."""
    tokens: NDArray[np.int64]
    """The read tokens, (requests, positions)."""
    phases: NDArray[np.uint8]
    """0 for prefill and 1 for decode, (requests, positions)."""
    places: NDArray[np.int64]
    """Token position in the request, (requests, positions)."""

    def rows(self) -> tuple[NDArray[np.float32], Places]:
        """Return vectors and facts of all positions in a row, (requests * positions, ...)."""
        places = Places(self.places.ravel(), self.tokens.ravel(), self.phases.ravel() == 0)
        return self.vectors.reshape(-1, self.vectors.shape[-1]), places


class Read(NamedTuple):
    """What was read at one position."""

    text: str
    fve: float
    beyond_token: float | None
    verified: bool
    kinds: dict[str, float]
    """Probability of every safety kind that the label head knows."""


def read_all(
    decoder: Decoder, incidents: Incidents, folder: Path, name: str, log: Callable[[str], None]
) -> list[list[Read]]:
    """Return the readings of every request's positions; what ``folder`` has is not read again."""
    width = incidents.vectors.shape[-1]
    rows = incidents.vectors.reshape(-1, width)
    digest = hashlib.sha256(rows.tobytes() + decoder.identity.digest.encode()).hexdigest()[:16]
    path = folder / f"{name}-{digest}.jsonl"
    ids = incidents.tokens.ravel().tolist()
    phases = ["decode" if phase else "prefill" for phase in incidents.phases.ravel().tolist()]

    def read_on(done: list[Any]) -> list[Any] | None:
        chunk = slice(len(done), len(done) + _CHUNK)
        if len(done) == len(rows):
            return None
        log(f"reading {name}: {len(done)} of {len(rows)}")
        readings = decoder.read(rows[chunk], GivenFacts(ids[chunk], phases[chunk]))
        return [_plain(reading) for reading in readings]

    grow_lines(path, read_on)
    each = incidents.vectors.shape[1]
    reads = [Read(*line) for line in read_lines(path)]
    return [reads[start : start + each] for start in range(0, len(reads), each)]


def _plain(reading: Reading) -> list[Any]:
    kinds = dict(reading.claims.kind_scores) if reading.claims else {}
    return [reading.text, reading.fve, reading.fve_beyond_token, reading.verified, kinds]
