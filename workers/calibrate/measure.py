"""`subtext calibrate`: decode held-out vectors and nulls, and write the decoder's calibration."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.reference import AnomalyError, save_reference
from subtext_sidecar.anomaly.score import Places, Reference, Template
from workers.calibrate.nulls import draw_pairs
from workers.calibrate.summary import Evidence, Nulls, Vectors, summarize
from workers.nla import fidelity, token_means
from workers.nla.calibration import ANOMALY, Calibration, save_calibration
from workers.nla.candidates import RoundTrip
from workers.nla.decoder import GivenFacts
from workers.nla.engine.verbalizer import EngineSettings, Explanation, prepare_environment
from workers.nla.errors import CalibrationError, DecoderError
from workers.nla.positions import TemplateIds, classify

if TYPE_CHECKING:
    from workers.nla.engine.nla_decoder import NlaDecoder

RANDOM_VECTORS = 128
"""Number of random directions decoded as a null."""
MEAN_VECTORS = 64
"""Number of noisy copies of the layer's mean decoded as a null, each at its own token."""
_NOISE = 0.01
_CHUNK = 64
_MINIMUM = 40


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
        help="safetensors with `vectors` (n, d_model) and, optionally, `documents` (n,), `tokens` (n,),"
        " `phases` (n,), 0 for prefill and 1 for decode, and `positions` (n,)",
    )
    parser.add_argument(
        "--token-vectors",
        type=Path,
        help="the same of other requests, for the token means and the anomaly reference: the more, the"
        " better they know rare tokens, and the smaller the p-values of requests can be"
        " (default: half of --vectors)",
    )
    parser.add_argument("--limit", type=int, default=400, help="read at most this many (default: 400)")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer (default: the decoder's own)")
    parser.add_argument(
        "--candidates",
        type=int,
        choices=range(1, 17),
        metavar="N",
        default=EngineSettings().candidates,
        help=f"readings of a vector; the worker's SUBTEXT_CANDIDATES must be the same"
        f" (default: {EngineSettings().candidates})",
    )
    parser.add_argument(
        "--p-value",
        type=float,
        default=anomaly_fit.P_VALUE,
        help="smallest p-value to call an anomaly by, which sets how many vectors are needed"
        f" (default: {anomaly_fit.P_VALUE})",
    )
    parser.add_argument(
        "--served-model",
        default=os.environ.get("SUBTEXT_SERVED_MODEL"),
        help="the model's name on records, by which the sidecar knows the anomaly reference"
        " (default: SUBTEXT_SERVED_MODEL, else the decoder's own)",
    )
    parser.add_argument(
        "--out", type=Path, help="where to write calibration.* and anomaly.* (default: the decoder)"
    )
    arguments = parser.parse_args(argv)
    prepare_environment()
    try:
        return _run(arguments)
    except DecoderError as error:
        sys.stderr.write(f"subtext calibrate: {error}\n")
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from workers.nla.engine.nla_decoder import NlaDecoder

    vectors = load_vectors(arguments.vectors)
    others = load_vectors(arguments.token_vectors) if arguments.token_vectors else None
    settings = EngineSettings(max_new_tokens=arguments.max_new_tokens, candidates=arguments.candidates)
    decoder = NlaDecoder.open(arguments.decoder_dir, settings, calibrating=True)
    try:
        # Fit before decoding, which takes long, so that unusable vectors fail early.
        anomaly = fit_anomaly(
            vectors if others is None else join([vectors, others]),
            p_value=arguments.p_value,
            model=arguments.served_model or decoder.identity.model,
            layer=decoder.identity.layer,
            template=decoder.template,
        )
        calibration = measure(
            decoder,
            vectors,
            limit=arguments.limit,
            token_source=others,
            log=_log,
        )
    finally:
        decoder.close()
    target = arguments.out or arguments.decoder_dir
    save_calibration(calibration, target)
    save_reference(anomaly, target / ANOMALY)
    for name, figure in calibration.figures.measured.items():
        _log(f"{name}: {figure}")
    _log(f"calibration written to {target}")
    return 0


def fit_anomaly(
    vectors: Vectors, *, p_value: float, model: str, layer: int, template: TemplateIds
) -> Reference:
    """Fit the detector's reference like `subtext screen fit`; raises CalibrationError."""
    places = None
    if vectors.tokens is not None and vectors.phases is not None:
        positions = np.zeros_like(vectors.tokens) if vectors.positions is None else vectors.positions
        places = Places(positions, vectors.tokens, vectors.phases == 0)
    try:
        return anomaly_fit.fit(
            vectors.rows,
            vectors.documents,
            model=model,
            layer=layer,
            p_value=p_value,
            places=places,
            template=Template(tuple(sorted(template.special)), tuple(sorted(template.words))),
        ).reference
    except AnomalyError as error:
        raise CalibrationError(str(error)) from None


def load_vectors(path: Path) -> Vectors:
    """Read and validate a calibration file; CalibrationError names the file and the tensor."""
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
    tokens, phases = _load_given(path, arrays, len(rows))
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise CalibrationError(f"{path}: vectors: some rows are zero or not finite; drop them")
    positions = _load_positions(path, arrays, len(rows))
    return Vectors(np.asarray(rows, np.float32), np.asarray(documents, np.int64), tokens, phases, positions)


def join(parts: Sequence[Vectors]) -> Vectors:
    """Return the rows of all parts; requests are numbered anew, so that those of parts stay distinct.

    What one part does not tell is not told of any.
    """
    documents, first = [], 0
    for part in parts:
        names, numbers = np.unique(part.documents, return_inverse=True)
        documents.append(numbers + first)
        first += len(names)
    rest = [
        None if any(one is None for one in column) else np.concatenate(column)
        for column in zip(*(part[2:] for part in parts), strict=True)
    ]
    return Vectors(np.concatenate([part.rows for part in parts]), np.concatenate(documents), *rest)


def _load_positions(path: Path, arrays: dict[str, Any], n: int) -> NDArray[np.int64] | None:
    positions = arrays.get("positions")
    if positions is None:
        return None
    if positions.shape != (n,) or positions.dtype.kind not in "iu" or positions.min() < 0:
        raise CalibrationError(f"{path}: positions: must be one whole number a row of vectors")
    return np.asarray(positions, np.int64)


def _load_given(
    path: Path, arrays: dict[str, Any], n: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.uint8] | None]:
    tokens, phases = arrays.get("tokens"), arrays.get("phases")
    if tokens is None and phases is None:
        return None, None
    for name, array in (("tokens", tokens), ("phases", phases)):
        if array is None or array.shape != (n,) or array.dtype.kind not in "iu" or array.min() < 0:
            raise CalibrationError(f"{path}: {name}: must be one whole number a row of vectors")
    if phases is not None and phases.max() > 1:
        raise CalibrationError(f"{path}: phases: must be 0 for prefill and 1 for decode")
    return np.asarray(tokens, np.int64), np.asarray(phases, np.uint8)


def measure(
    decoder: "NlaDecoder",
    vectors: Vectors,
    *,
    limit: int,
    log: Callable[[str], None],
    token_source: Vectors | None = None,
) -> Calibration:
    """Decode up to `limit` evenly spaced vectors and the nulls, and return the calibration.

    1. All vectors determine the baseline and the mean. The stored token means come from `token_source`,
       or without one from all vectors.
    2. Decoded vectors are scored against token means of other requests: those of `token_source`, or without
       one those of the half of the documents that is not decoded.
    3. The nulls are other documents' readings, random directions, the layer's mean and the empty text.
    """
    _check(decoder, vectors)
    embed = decoder.reconstructor.embed
    is_read = np.ones(len(vectors.rows), bool)
    if token_source is not None:
        means = kept_means = _fit(token_source, embed)
    else:
        if vectors.tokens is not None:
            is_read = split_documents(vectors.documents)
        means, kept_means = _fit(vectors.take(np.flatnonzero(~is_read)), embed), _fit(vectors, embed)
    chosen = spread_evenly(vectors.take(np.flatnonzero(is_read)), limit)
    reader = Reader(decoder, means, log)
    real = reader.read(chosen, "held-out vectors")
    nulls = Nulls(
        other=reader.try_on_others(real),
        random=reader.read(random_vectors(chosen), "random vectors"),
        mean=reader.read(mean_vectors(vectors, chosen), "the mean vector"),
        empty=decoder.reconstructor.rebuild([""] * len(chosen.rows), chosen.given.token_ids),
    )
    return summarize(
        vectors,
        real,
        nulls,
        identity=decoder.identity,
        pair_digest=decoder.pair_digest,
        token_means=kept_means,
    )


def _check(decoder: "NlaDecoder", vectors: Vectors) -> None:
    if vectors.rows.shape[1] != decoder.identity.d_model:
        raise CalibrationError(
            f"vectors: have {vectors.rows.shape[1]} entries, the decoder takes {decoder.identity.d_model};"
            " they are of another model"
        )
    if vectors.tokens is None and decoder.reconstructor.takes_token:
        raise CalibrationError(
            "tokens: missing; this decoder is given the token that each vector was read at, add `tokens`"
            " and `phases` to the file"
        )
    try:
        decoder.reconstructor.check_tokens(vectors.given.token_ids)
    except ValueError as error:
        raise CalibrationError(f"tokens: {error}; they are of another model") from None
    least = 2 if vectors.tokens is None else 4
    if len(np.unique(vectors.documents)) < least:
        raise CalibrationError(
            f"documents: vectors of at least {least} are needed; readings are tried on vectors of others"
        )


def _fit(vectors: Vectors, embed: token_means.Embed) -> token_means.TokenMeans | None:
    return None if vectors.tokens is None else token_means.fit(vectors.rows, vectors.tokens, embed)


def split_documents(documents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows belong to a random half of the documents (seeded), (n,)."""
    names, inverse = np.unique(documents, return_inverse=True)
    return np.asarray(
        np.random.default_rng(0).permutation(len(names))[inverse] < (len(names) + 1) // 2, bool
    )


def spread_evenly(vectors: Vectors, limit: int) -> Vectors:
    """Return at most `limit` rows, evenly spaced."""
    places = np.linspace(0, len(vectors.rows) - 1, min(limit, len(vectors.rows)))
    return vectors.take(np.unique(places.round().astype(np.int64)))


def random_vectors(chosen: Vectors) -> Vectors:
    """Return random directions of the median norm, at tokens of random chosen rows, one document each."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((RANDOM_VECTORS, chosen.rows.shape[1])).astype(np.float32)
    return _at_real_tokens(fidelity.to_unit(directions), chosen, rng)


def mean_vectors(vectors: Vectors, chosen: Vectors) -> Vectors:
    """Return noisy copies of the mean direction; norm, tokens and documents as in `random_vectors`."""
    rng = np.random.default_rng(1)
    mean = fidelity.mean_direction(vectors.rows)[None]
    noise = rng.standard_normal((MEAN_VECTORS, len(mean[0]))).astype(np.float32)
    return _at_real_tokens(fidelity.to_unit(mean) + _NOISE * fidelity.to_unit(noise), chosen, rng)


def _at_real_tokens(directions: NDArray[np.float64], chosen: Vectors, rng: np.random.Generator) -> Vectors:
    norm = np.median(np.linalg.norm(chosen.rows, axis=1))
    borrowed = chosen.take(rng.integers(len(chosen.rows), size=len(directions)))
    return borrowed._replace(
        rows=np.asarray(directions * norm, np.float32), documents=np.arange(len(directions))
    )


class Reader(NamedTuple):
    """Collects evidence with an uncalibrated decoder."""

    decoder: "NlaDecoder"
    means: token_means.TokenMeans | None
    """Fitted on documents that are not decoded."""
    log: Callable[[str], None]

    def read(self, vectors: Vectors, what: str) -> Evidence:
        """Decode the vectors in chunks; `what` names them in the progress lines."""
        given, parts = vectors.given, []
        for start in range(0, len(vectors.rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            of_chunk = GivenFacts(given.token_ids[chunk], given.phases[chunk])
            parts.append(self.decoder.round_trip(vectors.rows[chunk], of_chunk))
            self.log(f"reading {what}: {min(start + _CHUNK, len(vectors.rows))} of {len(vectors.rows)}")
        return Evidence(
            vectors,
            classify(given, self.decoder.template),
            self._expect(given.token_ids),
            RoundTrip(
                [candidates for part in parts for candidates in part.candidates],
                np.concatenate([part.rebuilt for part in parts]),
            ),
        )

    def try_on_others(self, real: Evidence) -> Evidence:
        """Pair every vector with readings of other documents' vectors of the same position class.

        An AR that takes the token rebuilds each reading with the token of the vector it is paired with.
        """
        pairs = draw_pairs(real.vectors.documents, real.classes)
        if not len(pairs.rows):
            raise CalibrationError("documents: no class of positions occurs in two; read more vectors")
        vectors = real.vectors.take(pairs.rows)
        candidates = [real.trip.candidates[partner] for partner in pairs.partners]
        rebuilt = real.trip.rebuilt[pairs.partners]
        if self.decoder.reconstructor.takes_token:
            rebuilt = self._rebuild(candidates, vectors.given.token_ids)
        expected = None if real.expected is None else real.expected[pairs.rows]
        classes = [real.classes[row] for row in pairs.rows]
        return Evidence(vectors, classes, expected, RoundTrip(candidates, rebuilt))

    def _rebuild(
        self, candidates: list[list[Explanation]], token_ids: Sequence[int]
    ) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(candidates), _CHUNK):
            chunk = candidates[start : start + _CHUNK]
            texts = [candidate.text for of_one in chunk for candidate in of_one]
            ids = np.repeat(token_ids[start : start + _CHUNK], len(chunk[0])).tolist()
            parts.append(
                self.decoder.reconstructor.rebuild(texts, ids).reshape(len(chunk), len(chunk[0]), -1)
            )
            self.log(f"rebuilding null pairs: {min(start + _CHUNK, len(candidates))} of {len(candidates)}")
        return np.concatenate(parts)

    def _expect(self, token_ids: Sequence[int]) -> NDArray[np.float64] | None:
        if self.means is None:
            return None
        return self.means.predict(token_ids, self.decoder.reconstructor.embed(token_ids))


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
