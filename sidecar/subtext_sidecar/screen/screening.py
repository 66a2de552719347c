"""Screen and thin rows, under a policy that may change at any time. No I/O.

A row is screened only when the reference is of its model, layer and width; any other passes by the
baseline alone and is counted as ``unscreened``.
"""

from collections import Counter
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from subtext_sidecar.anomaly.score import ANOMALY_SCORES, Detector, Reference
from subtext_sidecar.contract.counters import CounterName, SidecarCounter
from subtext_sidecar.contract.record import NO_SCORES, encode_scores
from subtext_sidecar.local.policy import PolicyError, ScreenPolicy
from subtext_sidecar.screen import thinning
from subtext_sidecar.screen.thinning import Arrivals, Rates, pass_on
from subtext_sidecar.shipper.rows import KeptRow, Kind, Rows

# What the screen says of a row; the first that holds.
Verdict = Literal["probe", "anomaly", "massive", "ordinary", "unscreened"]

_THINNED: Final = SidecarCounter.THINNED
_SCREENED: Final[dict[Verdict, CounterName]] = {
    "anomaly": SidecarCounter.SCREENED_ANOMALY,
    "probe": SidecarCounter.SCREENED_PROBE,
}


class ScreenOutcome(NamedTuple):
    """What became of the finite rows."""

    kept: list[KeptRow]
    counts: Counter[tuple[str, CounterName]]  # by stratum
    verdicts: Counter[Verdict]


class _Findings(NamedTuple):
    """One entry a finite row."""

    reasons: dict[int, str]  # of the rows that were found, by their place among the finite ones
    verdicts: list[Verdict]
    scores: list[msgspec.Raw]


class Screening:
    """Holds the reference, the policy and the rates in force. ``now`` is monotonic time in seconds."""

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
    def reference(self) -> Reference | None:
        """The reference that rows are screened by; None: they are not."""
        return None if self._detector is None else self._detector.reference

    def set_policy(self, policy: ScreenPolicy) -> None:
        """Follow another policy from the next row on; raises PolicyError and keeps the one in force."""
        check_policy(policy, self._detector)
        self._policy = policy
        self._state = thinning.follow_policy(self._state, policy)

    def adapt(self, now: float) -> None:
        """Adapt the rates to what arrived, once a second."""
        seconds = now - self._adapted_at
        if seconds >= thinning.ADAPT_SECONDS:
            self._state = thinning.adapt(self._state, self._policy, self._arrived, seconds)
            self._arrived, self._adapted_at = Arrivals(), now

    def take(self, rows: Rows) -> ScreenOutcome:
        """Decide about each finite row."""
        finite: list[int] = np.flatnonzero(np.isfinite(rows.norms)).tolist()
        found = self._find(rows, finite)
        self._arrived = Arrivals(self._arrived.rows + len(finite), self._arrived.found + len(found.reasons))
        taken = ScreenOutcome([], Counter(), Counter(found.verdicts))
        for place in found.reasons:
            taken.counts[rows.requests[finite[place]].stratum, _SCREENED[found.verdicts[place]]] += 1
        rates = self.rates
        if rates.baseline >= 1.0:
            # Every draw is below it: all rows pass, each by the baseline and as it came.
            facts = [rows.facts[row] for row in finite]
            probabilities, reasons = [one.probability for one in facts], [one.reason for one in facts]
            taken.kept.extend(map(KeptRow, finite, probabilities, probabilities, reasons, found.scores))
            return taken
        drawn = self._draws(rows)
        thinned = []
        for place, row in enumerate(finite):
            reason = found.reasons.get(place)
            passed = pass_on(drawn[row], rows.facts[row].probability, rates, is_found=reason is not None)
            if passed is None:
                thinned.append((rows.requests[row].stratum, _THINNED))
                continue
            if reason is None or passed.baseline_probability:
                reason = rows.facts[row].reason
            taken.kept.append(KeptRow(row, *passed, reason, found.scores[place]))
        taken.counts.update(thinned)
        return taken

    def _fits(self, kind: Kind) -> bool:
        if self._detector is None:
            return False
        of = self._detector.reference
        return (kind.model, kind.layer, kind.d_model) == (of.model, of.layer, of.d_model)

    def _draws(self, rows: Rows) -> list[float]:
        captures = [request.capture_id or request.request_id for request in rows.requests]
        of_captures = {one: thinning.draw(self._policy.seed, one) for one in set(captures)}
        return [of_captures[one] for one in captures]

    def _find(self, rows: Rows, finite: list[int]) -> _Findings:
        if self._detector is None or not finite or not self._fits(rows.kind):
            return _Findings({}, ["unscreened"] * len(finite), [NO_SCORES] * len(finite))
        is_whole = len(finite) == len(rows)
        vectors = rows.vectors if is_whole else rows.vectors[finite]
        measured = self._detector.measure(vectors, rows.norms if is_whole else rows.norms[finite])
        verdicts: list[Verdict] = ["ordinary"] * len(finite)
        for place in np.flatnonzero(measured.is_massive).tolist():
            verdicts[place] = "massive"
        reasons: dict[int, str] = {}
        # A p-value is at most 1, and no policy asks for one below 0: that is how it is switched off.
        wanted = -1.0 if self._policy.anomaly_p_value is None else self._policy.anomaly_p_value
        for place in np.flatnonzero(measured.p_values <= wanted).tolist():
            reasons[place], verdicts[place] = "screen_anomaly", "anomaly"
        by_probe = self._detector.probes_found(measured)
        for place in np.flatnonzero(by_probe.any(axis=1)).tolist():
            name = self._detector.reference.probes[int(np.argmax(by_probe[place]))].name
            reasons[place], verdicts[place] = f"screen_probe_{name}", "probe"
        scores = np.column_stack([measured.anomaly, measured.p_values, measured.probes])
        return _Findings(reasons, verdicts, encode_scores(self._names, scores))


def check_policy(policy: ScreenPolicy, detector: Detector | None) -> None:
    """Raise PolicyError when the reference cannot give p-values as low as the policy asks for."""
    if detector is None or policy.anomaly_p_value is None:
        return
    least = detector.reference.least_p_value
    if policy.anomaly_p_value < least:
        raise PolicyError(
            f"screen.anomaly_p_value is {policy.anomaly_p_value}: the reference has "
            f"{detector.reference.calibration_n} calibration rows, so no p-value is below {least:.3g}; "
            "fit it on more rows, or ask for more"
        )
