"""`subtext calibrate`: read held-out vectors with the real decoder and freeze what is normal for it."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.calibration import Calibration, Figures, save_calibration
from workers.nla.decoder import DecoderIdentity
from workers.nla.errors import CalibrationError, DecoderError
from workers.nla.verbalizer import EngineSettings, Explanation, prepare_environment

if TYPE_CHECKING:
    from workers.nla.nla_decoder import NlaDecoder, RoundTrip

RANDOM_VECTORS = 128
"""Random directions that are read as a null."""
_CHUNK = 64
_PERCENTILE = 95
_MINIMUM = 40


class Vectors(NamedTuple):
    """Calibration traffic."""

    rows: NDArray[np.float32]
    """(n, d_model), raw residual stream."""
    documents: NDArray[np.int64]
    """Which request each row comes from, (n,)."""

    def take(self, chosen: NDArray[np.int64]) -> "Vectors":
        """Return some rows."""
        return Vectors(self.rows[chosen], self.documents[chosen])


class Nulls(NamedTuple):
    """What readings that tell nothing look like."""

    random_vectors: NDArray[np.float32]
    random: "RoundTrip"
    empty: NDArray[np.float32]
    """What the AR makes of no text, (1, d_model)."""


def calibrate(argv: list[str]) -> int:
    """Calibrate a decoder on held-out vectors of benign traffic."""
    parser = argparse.ArgumentParser(prog="subtext calibrate", description=calibrate.__doc__)
    parser.add_argument(
        "--decoder-dir",
        type=Path,
        default=os.environ.get("SUBTEXT_DECODER_DIR"),
        required="SUBTEXT_DECODER_DIR" not in os.environ,
        help="assembled decoder: av/, ar/ (default: SUBTEXT_DECODER_DIR)",
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        required=True,
        help="safetensors with `vectors` (n, d_model) and, optionally, `documents` (n,)",
    )
    parser.add_argument("--limit", type=int, default=400, help="read at most this many (default: 400)")
    parser.add_argument("--max-new-tokens", type=int, default=EngineSettings().max_new_tokens)
    parser.add_argument("--out", type=Path, help="where to write calibration.* (default: the decoder)")
    arguments = parser.parse_args(argv)
    prepare_environment()
    try:
        return _run(arguments)
    except DecoderError as error:
        sys.stderr.write(f"subtext calibrate: {error}\n")
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from workers.judge import anomalies
    from workers.nla.nla_decoder import NlaDecoder

    vectors = load_vectors(arguments.vectors)
    decoder = NlaDecoder.open(
        arguments.decoder_dir, EngineSettings(max_new_tokens=arguments.max_new_tokens), calibrating=True
    )
    try:
        calibration = measure(
            decoder,
            vectors,
            anomaly=anomalies.fit(vectors.rows, vectors.documents).to_arrays(),
            limit=arguments.limit,
            log=_log,
        )
    finally:
        decoder.close()
    target = arguments.out or arguments.decoder_dir
    save_calibration(calibration, target)
    for name, figure in calibration.figures.measured.items():
        _log(f"{name}: {figure}")
    _log(f"calibration written to {target}")
    return 0


def load_vectors(path: Path) -> Vectors:
    """Read calibration vectors; CalibrationError names what is wrong with the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CalibrationError(
            f"{path}: not a safetensors file ({error}); `subtext train` writes one"
        ) from error
    rows = arrays.get("vectors")
    if rows is None or rows.ndim != 2 or len(rows) < _MINIMUM:  # noqa: PLR2004 - rows and columns
        raise CalibrationError(f"{path}: vectors: must be (n, d_model) with n at least {_MINIMUM}")
    documents = arrays.get("documents", np.arange(len(rows)))
    if documents.shape != (len(rows),):
        raise CalibrationError(f"{path}: documents: must be one number a row of vectors")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise CalibrationError(f"{path}: vectors: some rows are zero or not finite; drop them")
    return Vectors(np.asarray(rows, np.float32), np.asarray(documents, np.int64))


def measure(
    decoder: "NlaDecoder",
    vectors: Vectors,
    *,
    anomaly: dict[str, NDArray[Any]],
    limit: int,
    log: Callable[[str], None],
) -> Calibration:
    """Read `limit` of the vectors, evenly spread, and as many nulls as it takes.

    Baseline, mean and anomaly reference stand on all vectors, figures about readings on the read ones.
    """
    identity = decoder.identity
    if vectors.rows.shape[1] != identity.d_model:
        raise CalibrationError(
            f"vectors: have {vectors.rows.shape[1]} entries, the decoder takes {identity.d_model};"
            " they are of another model"
        )
    spread = np.linspace(0, len(vectors.rows) - 1, min(limit, len(vectors.rows)))
    chosen = vectors.take(np.unique(spread.round().astype(np.int64)))
    real = _read(decoder, chosen.rows, log=log, what="held-out vectors")
    directions = np.random.default_rng(0).standard_normal((RANDOM_VECTORS, identity.d_model))
    noise = fidelity.to_unit(directions.astype(np.float32)) * np.median(np.linalg.norm(chosen.rows, axis=1))
    noise = np.asarray(noise, np.float32)
    random = _read(decoder, noise, log=log, what="random vectors")
    nulls = Nulls(noise, random, decoder.reconstructor.rebuild([""]))
    return summarize(
        vectors, chosen, real, nulls, identity=identity, pair_digest=decoder.pair_digest, anomaly=anomaly
    )


def summarize(
    vectors: Vectors,
    chosen: Vectors,
    real: "RoundTrip",
    nulls: Nulls,
    *,
    identity: DecoderIdentity,
    pair_digest: str,
    anomaly: dict[str, NDArray[Any]],
) -> Calibration:
    """Compute every figure of a calibration from its readings; pure."""
    baseline = fidelity.fve_baseline(vectors.rows)
    rows, documents = chosen
    partners = fidelity.other_documents(documents)
    real_fve = fidelity.fve(rows, real.rebuilt, baseline=baseline)
    shuffled_fve = fidelity.fve(rows, real.rebuilt[partners], baseline=baseline)
    random_fve = fidelity.fve(nulls.random_vectors, nulls.random.rebuilt, baseline=baseline)
    empty_fve = fidelity.fve(rows, np.repeat(nulls.empty, len(rows), axis=0), baseline=baseline)
    p95 = float(np.percentile(shuffled_fve, _PERCENTILE))
    threshold = max(p95, 0.0)  # as DecoderIdentity.verified_above
    measured = {
        "fve": fidelity.mean_interval(real_fve, documents),
        "cosine": fidelity.mean_interval(fidelity.cosine(rows, real.rebuilt), documents),
        "shuffled_fve": fidelity.mean_interval(shuffled_fve, documents),
        "empty_text_fve": fidelity.mean_interval(empty_fve, documents),
        "random_vector_fve": fidelity.mean_interval(random_fve, np.arange(len(random_fve))),
        "verified_share": fidelity.share_interval(real_fve > threshold),
        "random_vector_verified_share": fidelity.share_interval(random_fve > threshold),
        "well_formed_share": fidelity.share_interval(_well_formed(real.explanations)),
    }
    return Calibration(
        figures=Figures(
            decoder_digest=pair_digest,
            model=identity.model,
            layer=identity.layer,
            d_model=identity.d_model,
            vectors=len(vectors.rows),
            fve_baseline=baseline,
            n=len(rows),
            shuffled_fve_p95=p95,
            measured={name: figure.as_dict() for name, figure in measured.items()},
        ),
        mean=fidelity.mean_direction(vectors.rows).astype(np.float32),
        real_fve=real_fve.astype(np.float32),
        shuffled_fve=shuffled_fve.astype(np.float32),
        random_fve=random_fve.astype(np.float32),
        anomaly=anomaly,
    )


def _well_formed(explanations: list[Explanation]) -> NDArray[np.bool_]:
    return np.array([said.well_formed for said in explanations])


def _read(
    decoder: "NlaDecoder", rows: NDArray[np.float32], *, log: Callable[[str], None], what: str
) -> "RoundTrip":
    from workers.nla.nla_decoder import RoundTrip

    parts = []
    for start in range(0, len(rows), _CHUNK):
        parts.append(decoder.round_trip(rows[start : start + _CHUNK]))
        log(f"reading {what}: {min(start + _CHUNK, len(rows))} of {len(rows)}")
    explanations = [said for part in parts for said in part.explanations]
    return RoundTrip(explanations, np.concatenate([part.rebuilt for part in parts]))


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
