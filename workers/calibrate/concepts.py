"""`subtext calibrate concepts`: from judged benign requests to the rule and the rate of every concept."""

import argparse
import base64
import datetime as dt
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from workers.calibrate import incidents, rates
from workers.judge import probes
from workers.judge.calibration import (
    FORMAT,
    CalibratedConcept,
    ConceptCalibration,
    HeldOut,
    Measured,
    Traffic,
    save,
)
from workers.judge.concepts import Concept, ConceptsError, ConceptSet, load_concepts
from workers.judge.embedder import MiniLmEmbedder
from workers.judge.flags import judged_positions
from workers.judge.matching import NOTHING, ConceptMatcher
from workers.nla.decoder import Claims
from workers.nla.errors import CalibrationError

_QUANTILES: Final = {"least": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
_BAD_USE: Final = 2


class JudgedReading(BaseModel):
    """A line of a readings file: what the decoder of the calibration said of one position."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request: str
    position: Annotated[int, Field(ge=0)]
    text: str
    verified: bool
    claims: Claims | None = None
    vector: str | None = None
    """The activation, little-endian float32 in base64; only probes need it."""
    captured_at: AwareDatetime | None = None


class Decoded(NamedTuple):
    """The decoder that read the requests."""

    digest: str
    model: str
    layer: int


class Requests(NamedTuple):
    """Benign requests with the scores of their judged positions."""

    traffic: Traffic
    positions: list[NDArray[np.float64]]
    """By request, (verified positions of the judged ones, concepts)."""


def calibrate(argv: list[str]) -> int:
    """Calibrate concepts on readings of benign requests."""
    parser = argparse.ArgumentParser(prog="subtext calibrate concepts", description=calibrate.__doc__)
    parser.add_argument(
        "--readings",
        type=Path,
        required=True,
        help="lines of JSON, one a reading, in the order in which they were read: `request`, `position`,"
        " `text`, `verified`, `claims` and optionally `captured_at`; for concepts with a probe also"
        " `vector`, float32 in base64. All must be of benign requests, sampled as the policy samples, by"
        " one decoder",
    )
    parser.add_argument(
        "--positions",
        type=int,
        required=True,
        help="how many positions of a request decide whether a flag is calibrated: those that were read"
        " first, verified or not. Requests with fewer are left out",
    )
    parser.add_argument("--held-out", type=Path, help="the same of other requests, to try the rules on")
    parser.add_argument("--source", required=True, help="what the requests are, for the file")
    parser.add_argument("--decoder-digest", required=True, help="the decoder's, as REST tells it")
    parser.add_argument("--model", required=True, help="the audited model")
    parser.add_argument("--layer", type=int, required=True, help="the decoder's layer")
    parser.add_argument(
        "--concepts-file",
        type=Path,
        default=os.environ.get("SUBTEXT_CONCEPTS_FILE"),
        required="SUBTEXT_CONCEPTS_FILE" not in os.environ,
        help="default: SUBTEXT_CONCEPTS_FILE",
    )
    parser.add_argument("--out", type=Path, required=True, help="the worker's concept calibration file")
    arguments = parser.parse_args(argv)
    try:
        calibration = _run(arguments)
    except (ConceptsError, CalibrationError, probes.ProbeError) as error:
        sys.stderr.write(f"subtext calibrate concepts: {error}\n")
        return _BAD_USE
    save(calibration, arguments.out)
    for line in describe(calibration):
        sys.stderr.write(line + "\n")
    return 0


def _run(arguments: argparse.Namespace) -> ConceptCalibration:
    concepts = load_concepts(arguments.concepts_file)
    probes.check_fit(
        concepts.probes.values(), models={arguments.model}, layer=arguments.layer, d_model=None
    )
    matcher = ConceptMatcher(concepts, MiniLmEmbedder(), {})
    found = [
        measure(
            load_readings(path),
            matcher,
            positions=arguments.positions,
            source=f"{arguments.source} ({path.name})",
        )
        for path in (arguments.readings, arguments.held_out)
        if path is not None
    ]
    decoded = Decoded(arguments.decoder_digest, arguments.model, arguments.layer)
    return summarize(
        concepts,
        decoded,
        found[0],
        found[1] if len(found) > 1 else None,
        positions_judged=arguments.positions,
    )


def load_readings(path: Path) -> list[JudgedReading]:
    """Read a file of readings; CalibrationError names the line and the field."""
    readings: list[JudgedReading] = []
    try:
        readings.extend(JudgedReading.model_validate_json(line) for line in _lines(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "line"
        raise CalibrationError(
            f"{path}: line {len(readings) + 1}: {field}: {first['msg']}; correct it"
        ) from None
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error}") from error
    if not readings:
        raise CalibrationError(f"{path}: holds no readings; give those of benign requests")
    return readings


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if line.strip())


def measure(
    readings: Sequence[JudgedReading], matcher: ConceptMatcher, *, positions: int, source: str
) -> Requests:
    """Score the verified ones of the first ``positions`` positions of every request.

    A position that was read twice counts once, by its first reading. CalibrationError when every request
    has fewer positions.
    """
    kept, left_out = _judged(readings, positions)
    if not kept:
        raise CalibrationError(
            f"readings: positions {positions}: none of the {left_out} requests has as many; ask for fewer,"
            " or read more of each request"
        )
    is_verified = [one.verified for one in kept]
    verified = [one for one in kept if one.verified]
    vectors = _vectors(verified) if matcher.needs_vectors else None
    found = matcher.measure([one.text for one in verified], [one.claims for one in verified], vectors)
    scores = np.full((len(kept), found.shape[1]), NOTHING)
    scores[is_verified] = found
    rows = incidents.by_request([one.request for one in kept], is_verified)
    last: dict[str, int] = {}
    for one in kept:
        last[one.request] = max(last.get(one.request, 0), one.position)
    captured = [one.captured_at for one in kept if one.captured_at is not None]
    traffic = Traffic(
        source=source,
        captured_from=min(captured, default=None),
        captured_until=max(captured, default=None),
        requests=len(rows),
        requests_left_out=left_out,
        readings=len(kept),
        verified_readings=len(verified),
        verified_positions=_quantiles([len(places) for places in rows.values()]),
        last_position=_quantiles(list(last.values())),
    )
    return Requests(traffic, [scores[places] for places in rows.values()])


def _judged(readings: Sequence[JudgedReading], positions: int) -> tuple[list[JudgedReading], int]:
    """Return the readings that a calibrated rule looks at, and how many requests have too few."""
    by_request: dict[str, dict[int, JudgedReading]] = {}
    for reading in readings:
        by_request.setdefault(reading.request, {}).setdefault(reading.position, reading)
    found = {request: read for request, read in by_request.items() if len(read) >= positions}
    kept = [
        read[position]
        for read in found.values()
        for position in sorted(judged_positions(list(read), positions))
    ]
    return kept, len(by_request) - len(found)


def _vectors(readings: Sequence[JudgedReading]) -> NDArray[np.float32]:
    """Return the activations of the readings, (n, d_model); CalibrationError names a bad one."""
    rows = []
    for one in readings:
        place = f"readings: request {one.request!r}, position {one.position}: vector"
        if one.vector is None:
            raise CalibrationError(f"{place}: is missing, and a concept has a probe; add what was read")
        try:
            rows.append(np.frombuffer(base64.b64decode(one.vector, validate=True), "<f4"))
        except ValueError as error:
            raise CalibrationError(f"{place}: is not float32 in base64: {error}") from None
        if rows[-1].shape != rows[0].shape or not np.isfinite(rows[-1]).all() or not rows[-1].any():
            raise CalibrationError(f"{place}: must be finite, not zero, and as wide as the others")
    return np.array(rows, np.float32)


def summarize(
    concepts: ConceptSet,
    decoded: Decoded,
    benign: Requests,
    held_out: Requests | None = None,
    *,
    positions_judged: int,
) -> ConceptCalibration:
    """Choose every concept's rule and measure it; CalibrationError when the requests are too few."""
    _check_enough(concepts, benign.traffic.requests)
    chosen = [
        _choose(concept, [positions[:, index] for positions in benign.positions], positions_judged)
        for index, concept in enumerate(concepts.concepts)
    ]
    rules = {
        index: incidents.Rule(found.positions_required, found.threshold, 0)
        for index, found in enumerate(chosen)
        if found.reason is None
    }
    names = [concept.name for concept in concepts.concepts]
    return ConceptCalibration(
        format=FORMAT,
        made_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        decoder_digest=decoded.digest,
        model=decoded.model,
        layer=decoded.layer,
        concepts_digest=concepts.digest,
        traffic=benign.traffic,
        positions_judged=positions_judged,
        concepts=dict(zip(names, chosen, strict=True)),
        any_concept=_measured(_flagged(benign, rules).any(axis=1)),
        held_out=None if held_out is None else _try(held_out, rules, names),
    )


def _check_enough(concepts: ConceptSet, requests: int) -> None:
    for concept in concepts.concepts:
        needed = rates.requests_needed(concept.target)
        if requests < needed:
            raise CalibrationError(
                f"readings: concept {concept.name!r}: target_false_positive_rate {concept.target:g} needs"
                f" {needed} benign requests, for an upper limit as low when none is flagged; there are"
                f" {requests}"
            )


def _choose(concept: Concept, positions: Sequence[NDArray[np.float64]], judged: int) -> CalibratedConcept:
    required = concept.positions_required
    scores = np.array([incidents.score(one, required) for one in positions])
    own = [matcher.threshold for matcher in concept.matchers if matcher.threshold is not None]
    rule = incidents.choose_rule(
        scores,
        positions_required=required,
        target=concept.target,
        least_threshold=max(own, default=None),
    )
    flagged = np.array([incidents.is_flagged(one, rule) for one in positions])
    reason = None
    if rule.positions_required > judged:
        cause = "" if required > judged else "certain matches are too frequent on benign requests: "
        reason = (
            f"{cause}{rule.positions_required} positions would have to match, and a calibrated flag looks"
            f" at {judged}"
        )
    return CalibratedConcept(
        version=concept.version,
        digest=concept.digest,
        target_false_positive_rate=concept.target,
        positions_required=rule.positions_required,
        threshold=rule.threshold,
        reason=reason,
        # The rule was chosen on these requests: its limit is that of as many flags as the choice allowed.
        measured=_measured(flagged, at_least=rule.allowed),
        scores=_quantiles(scores),
    )


def _try(requests: Requests, rules: Mapping[int, incidents.Rule], names: Sequence[str]) -> HeldOut:
    flagged = _flagged(requests, rules)
    return HeldOut(
        traffic=requests.traffic,
        concepts={names[index]: _measured(flagged[:, column]) for column, index in enumerate(rules)},
        any_concept=_measured(flagged.any(axis=1)),
    )


def _flagged(requests: Requests, rules: Mapping[int, incidents.Rule]) -> NDArray[np.bool_]:
    """Return which requests each rule flags, (requests, rules)."""
    return np.array(
        [
            [incidents.is_flagged(positions[:, index], rule) for index, rule in rules.items()]
            for positions in requests.positions
        ],
        bool,
    ).reshape(len(requests.positions), len(rules))


def _measured(flagged: NDArray[np.bool_] | np.bool_, *, at_least: int = 0) -> Measured:
    count, requests = int(flagged.sum()), flagged.size
    return Measured(
        requests=requests,
        incidents=count,
        rate=count / requests,
        upper_limit=rates.upper_limit(max(count, at_least), requests),
    )


def _quantiles(values: Sequence[Any] | NDArray[np.float64]) -> dict[str, float]:
    return {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}


def describe(calibration: ConceptCalibration) -> Iterator[str]:
    """Yield a line for each concept."""
    tried = calibration.held_out.concepts if calibration.held_out else {}
    for name, found in calibration.concepts.items():
        if found.reason is not None:
            yield f"{name}: stays a lead: {found.reason}"
            continue
        threshold = "" if found.threshold is None else f", threshold {found.threshold:.3f}"
        yield f"{name}: {found.positions_required} positions{threshold}: {_told(found.measured)}" + (
            f"; held out {_told(tried[name])}" if name in tried else ""
        )
    yield f"any concept: {_told(calibration.any_concept)}"
    if calibration.held_out:
        yield f"any concept, held out: {_told(calibration.held_out.any_concept)}"


def _told(measured: Measured) -> str:
    return (
        f"{measured.incidents} of {measured.requests} benign requests flagged, upper limit"
        f" {measured.upper_limit:.4f}"
    )
