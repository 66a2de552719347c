"""Read strange and benign prompts at some positions each, and score what the decoder cannot rebuild."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import anomaly
from bench.anomaly_read import Traffic
from bench.trust.class_scores import surprise
from bench.trust.reading import Incidents, read_all
from bench.trust.reconstruction import scores
from bench.trust.reconstruction.scores import KindFigure
from subtext_sidecar.anomaly.score import PROMPT, Detector, Places
from workers.nla.decoder import Decoder

_BENIGN: Final = "benign"
_UNUSED: Final = "calibration"
"""Kind that bench-anomaly reads for baselines of its own."""
_WHOLE: Final = 1 << 20


class Sizes(NamedTuple):
    """How much is read."""

    benign: int
    """Benign requests, half of which set scales."""
    strange: int
    """Requests of each strange kind."""
    positions: int
    """Positions of each request's own words."""


def collect(
    *, model: Path, run: Path, wheels: Path, kept: Path, sizes: Sizes, layer: int
) -> dict[str, Traffic]:
    """Return the activations of every kind's prompts, as bench-anomaly reads them."""
    options = argparse.Namespace(
        model=model,
        run=run,
        wheels=wheels,
        work=kept / f"prompts-{sizes.benign}-{sizes.strange}",
        requests=sizes.benign,
        strange=sizes.strange,
    )
    found = anomaly.collect(options, layer)
    return {kind: traffic for kind, traffic in found.items() if kind != _UNUSED}


def measure(
    decoder: Decoder,
    detector: Detector,
    traffic: dict[str, Traffic],
    sizes: Sizes,
    *,
    kept: Path,
    log: Callable[[str], None],
) -> tuple[list[KindFigure], dict[str, Any]]:
    """Return every figure and the setting."""
    by_kind = {}
    for kind, of_kind in traffic.items():
        rows = choose(detector, of_kind, sizes.positions)
        name = f"reconstruction-{kind.replace(',', '').replace(' ', '-')}"
        reads = read_all(decoder, _incidents(of_kind, rows), kept, name, log)
        judged = anomaly.judge(detector, of_kind)
        by_kind[kind] = {
            **scores.reading_scores(reads),
            scores.SAMPLED: surprise(judged.p_values[rows]),
            scores.WHOLE: judged.scores(_WHOLE)[of_kind.documents[rows[:, 0]]],
        }
    return scores.figures(by_kind, _BENIGN), {
        "digest": decoder.identity.digest,
        "requests": {kind: len(next(iter(of_kind.values()))) for kind, of_kind in by_kind.items()},
        **sizes._asdict(),
    }


def choose(detector: Detector, traffic: Traffic, positions: int) -> NDArray[np.int64]:
    """Return evenly spaced rows of each request's own words, (requests, positions).

    Requests of fewer words are left out.
    """
    places = Places(traffic.positions, traffic.tokens, traffic.phases == 0)
    is_prompt = detector.reference.template.classify(places) == PROMPT
    chosen = [
        scores.spread(np.flatnonzero(is_prompt & (traffic.documents == document)), positions)
        for document in np.unique(traffic.documents)
    ]
    return np.array([rows for rows in chosen if rows is not None], np.int64).reshape(-1, positions)


def _incidents(traffic: Traffic, rows: NDArray[np.int64]) -> Incidents:
    return Incidents(
        traffic.vectors[rows], traffic.tokens[rows], traffic.phases[rows], traffic.positions[rows]
    )
