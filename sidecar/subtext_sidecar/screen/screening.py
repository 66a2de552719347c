"""Screen and thin rows under a policy that may change at any time. No I/O.

A row is screened only when the reference has its model, layer and width. Any other row is counted as
``unscreened`` and passes only by the baseline.
"""

from collections import Counter
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from subtext_sidecar.anomaly.score import ANOMALY_SCORES, Detector, Places, Reference
from subtext_sidecar.contract.counters import CounterName, SidecarCounter, Stratum
from subtext_sidecar.contract.record import NO_SCORES, encode_scores
from subtext_sidecar.local.policy import PolicyError, ScreenPolicy
from subtext_sidecar.screen import thinning
from subtext_sidecar.screen.thinning import Arrivals, Rates, pass_on
from subtext_sidecar.shipper.rows import KeptRow, Kind, Rows

# The screen's verdict on a row; of several that apply, the first one counts.
Verdict = Literal["probe", "anomaly", "massive", "ordinary", "unscreened"]

_CANARY: Final = Stratum.CANARY
_THINNED: Final = SidecarCounter.THINNED
_SCREENED: Final[dict[Verdict, CounterName]] = {
    "anomaly": SidecarCounter.SCREENED_ANOMALY,
    "probe": SidecarCounter.SCREENED_PROBE,
}


class ScreenOutcome(NamedTuple):
    """The finite rows that go on, with counts for the metrics."""

    kept: list[KeptRow]
    counts: Counter[tuple[str, CounterName]]  # by stratum
    verdicts: Counter[Verdict]


class _Findings(NamedTuple):
    """Screening results; ``verdicts`` and ``scores`` have one entry per finite row."""

    reasons: dict[int, str]  # of the rows that the screen found, by index into the finite rows
    verdicts: list[Verdict]
    scores: list[msgspec.Raw]


class Screening:
    """Screens and thins under the reference, policy and rates in force; ``now`` is monotonic seconds."""

    def __init__(self, detector: Detector | None, policy: ScreenPolicy, now: float) -> None:
        check_policy(policy, detector)
        self._detector = detector
        probes = () if detector is None else detector.reference.probes
        self._names = (*ANOMALY_SCORES, *(f"probe_{probe.name}" for probe in probes))
        self._policy = policy
        self._state = thinning.start(policy)
        self._arrived = Arrivals()
        self._adapted_at = now

    @property
    def rates(self) -> Rates:
        """The keep rates in force."""
        return self._state.rates

    @property
    def policy(self) -> ScreenPolicy:
        """The policy in force."""
        return self._policy

    @property
    def reference(self) -> Reference | None:
        """The reference in force, or None when rows are not screened."""
        return None if self._detector is None else self._detector.reference

    def set_policy(self, policy: ScreenPolicy) -> None:
        """Switch to another policy from the next row on; on PolicyError the old one stays in force."""
        check_policy(policy, self._detector)
        self._policy = policy
        self._state = thinning.follow_policy(self._state, policy)

    def adapt(self, now: float) -> None:
        """Adapt the rates to the arrivals, at most once per ``ADAPT_SECONDS``."""
        seconds = now - self._adapted_at
        if seconds >= thinning.ADAPT_SECONDS:
            self._state = thinning.adapt(self._state, self._policy, self._arrived, seconds)
            self._arrived, self._adapted_at = Arrivals(), now

    def take(self, rows: Rows) -> ScreenOutcome:
        """Screen and thin the finite rows."""
        finite: list[int] = np.flatnonzero(np.isfinite(rows.norms)).tolist()
        findings = self._find(rows, finite)
        canaries = {place for place, row in enumerate(finite) if rows.requests[row].stratum == _CANARY}
        verdicts = Counter(findings.verdicts)
        if canaries:
            # They are no traffic: nothing that adapts to it or tells of it may see them.
            verdicts -= Counter([findings.verdicts[place] for place in canaries])
        self._arrived = Arrivals(
            self._arrived.rows + len(finite) - len(canaries),
            self._arrived.found + len(findings.reasons.keys() - canaries),
        )
        outcome = ScreenOutcome([], Counter(), verdicts)
        for place in findings.reasons:
            outcome.counts[rows.requests[finite[place]].stratum, _SCREENED[findings.verdicts[place]]] += 1
        rates = self.rates
        if rates.baseline >= 1.0:
            # Every draw is below 1, so all rows pass by the baseline with unchanged probabilities.
            facts = [rows.facts[row] for row in finite]
            probabilities, reasons = [one.probability for one in facts], [one.reason for one in facts]
            outcome.kept.extend(
                map(KeptRow, finite, probabilities, probabilities, reasons, findings.scores)
            )
            return outcome
        drawn = self._draws(rows)
        thinned = []
        for place, row in enumerate(finite):
            if place in canaries:
                outcome.kept.append(_whole(rows, row, findings.scores[place]))
                continue
            reason = findings.reasons.get(place)
            passed = pass_on(drawn[row], rows.facts[row].probability, rates, is_found=reason is not None)
            if passed is None:
                thinned.append((rows.requests[row].stratum, _THINNED))
                continue
            if reason is None or passed.baseline_probability:
                reason = rows.facts[row].reason
            outcome.kept.append(KeptRow(row, *passed, reason, findings.scores[place]))
        outcome.counts.update(thinned)
        return outcome

    def _fits(self, kind: Kind) -> bool:
        if self._detector is None:
            return False
        reference = self._detector.reference
        return (kind.model, kind.layer, kind.d_model) == (
            reference.model,
            reference.layer,
            reference.d_model,
        )

    def _draws(self, rows: Rows) -> list[float]:
        captures = [request.capture_id or request.request_id for request in rows.requests]
        of_captures = {one: thinning.draw(self._policy.seed, one) for one in set(captures)}
        return [of_captures[one] for one in captures]

    def _find(self, rows: Rows, finite: list[int]) -> _Findings:
        if self._detector is None or not finite or not self._fits(rows.kind):
            return _Findings({}, ["unscreened"] * len(finite), [NO_SCORES] * len(finite))
        is_whole = len(finite) == len(rows)
        vectors = rows.vectors if is_whole else rows.vectors[finite]
        norms = rows.norms if is_whole else rows.norms[finite]
        measured = self._detector.measure(
            vectors, norms, Places.of(rows.facts if is_whole else [rows.facts[row] for row in finite])
        )
        verdicts: list[Verdict] = ["ordinary"] * len(finite)
        for place in np.flatnonzero(measured.is_massive).tolist():
            verdicts[place] = "massive"
        reasons: dict[int, str] = {}
        # No p-value is below 0, so -1 switches the anomaly rule off.
        threshold = -1.0 if self._policy.anomaly_p_value is None else self._policy.anomaly_p_value
        for place in np.flatnonzero(measured.p_values <= threshold).tolist():
            reasons[place], verdicts[place] = "screen_anomaly", "anomaly"
        by_probe = self._detector.probes_found(measured)
        for place in np.flatnonzero(by_probe.any(axis=1)).tolist():
            name = self._detector.reference.probes[int(np.argmax(by_probe[place]))].name
            reasons[place], verdicts[place] = f"screen_probe_{name}", "probe"
        scores = np.column_stack([measured.anomaly, measured.p_values, measured.probes])
        return _Findings(reasons, verdicts, encode_scores(self._names, scores))


def _whole(rows: Rows, row: int, scores: msgspec.Raw) -> KeptRow:
    """Return a row that chance does not thin."""
    facts = rows.facts[row]
    return KeptRow(row, facts.probability, facts.probability, facts.reason, scores)


def check_policy(policy: ScreenPolicy, detector: Detector | None) -> None:
    """Raise PolicyError when the policy's p-value is below the smallest that the reference can give."""
    if detector is None or policy.anomaly_p_value is None:
        return
    least = detector.reference.least_p_value
    if policy.anomaly_p_value < least:
        raise PolicyError(
            f"screen.anomaly_p_value is {policy.anomaly_p_value}: the reference has "
            f"{detector.reference.calibration_n} calibration rows, so no p-value is below {least:.3g}; "
            "fit it on more rows, or ask for more"
        )
