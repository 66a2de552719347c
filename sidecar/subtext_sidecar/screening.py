"""Screen and thin the rows of whole blocks, under a policy that may change at any time. No I/O.

A row is screened only when the reference is of its model, layer and width; any other passes by the
baseline alone and is counted as ``unscreened``.
"""

from collections import Counter
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from subtext_sidecar import thinning
from subtext_sidecar.block import BlockHeader
from subtext_sidecar.policy import PolicyError, ScreenPolicy
from subtext_sidecar.rows import Kept, Rows, strata_of
from subtext_sidecar.screen import Screen
from subtext_sidecar.thinning import Arrivals, Rates

# What the screen says of a row; the first that holds.
Verdict = Literal["probe", "anomaly", "massive", "ordinary", "unscreened"]

_ANOMALY_SCORES: Final = ("anomaly", "anomaly_p_value")


class Taken(NamedTuple):
    """What became of the finite rows of one block."""

    kept: list[Kept]
    counts: Counter[tuple[str, str]]  # by stratum and counter of the ledger
    verdicts: Counter[Verdict]


class _Findings(NamedTuple):
    """Per row, by its number in the block."""

    reasons: dict[int, str]  # of the rows that were found
    verdicts: list[Verdict]
    names: tuple[str, ...]
    scores: list[list[float]]  # in the order of ``names``; empty when not screened


class Screening:
    """Holds the reference, the policy and the rates in force. ``now`` is monotonic time in seconds."""

    def __init__(self, screen: Screen | None, policy: ScreenPolicy, now: float) -> None:
        check_policy(policy, screen)
        self._screen = screen
        self._policy = policy
        self._state = thinning.start(policy)
        self._arrived = Arrivals()
        self._adapted_at = now

    @property
    def rates(self) -> Rates:
        """The keep rates in force."""
        return self._state.rates

    @property
    def has_reference(self) -> bool:
        """Tell whether rows can be screened at all."""
        return self._screen is not None

    def set_policy(self, policy: ScreenPolicy) -> None:
        """Follow another policy from the next row on; raises PolicyError and keeps the one in force."""
        check_policy(policy, self._screen)
        self._policy = policy
        self._state = thinning.follow_policy(self._state, policy)

    def adapt(self, now: float) -> None:
        """Adapt the rates to what arrived, once a second."""
        seconds = now - self._adapted_at
        if seconds >= thinning.ADAPT_SECONDS:
            self._state = thinning.adapt(self._state, self._policy, self._arrived, seconds)
            self._arrived, self._adapted_at = Arrivals(), now

    def take(self, rows: Rows) -> Taken:
        """Decide about each finite row of a block."""
        finite: list[int] = np.flatnonzero(np.isfinite(rows.norms)).tolist()
        found = self._find(rows, finite)
        self._arrived = Arrivals(self._arrived.rows + len(finite), self._arrived.found + len(found.reasons))
        taken = Taken([], Counter(), Counter(found.verdicts))
        strata, drawn = strata_of(rows.block), self._draws(rows.block.header)
        for place, row in enumerate(finite):
            reason = found.reasons.get(row)
            if reason is not None:
                taken.counts[strata[row], f"screened_{found.verdicts[place]}"] += 1
            kept = self._pass_on(rows.block.header, row, drawn[row], reason)
            if kept is None:
                taken.counts[strata[row], "thinned"] += 1
                continue
            if found.scores:
                kept.scores.update(zip(found.names, found.scores[place], strict=True))
            taken.kept.append(kept)
        return taken

    def fits(self, header: BlockHeader) -> bool:
        """Tell whether a block's rows can be screened."""
        if self._screen is None:
            return False
        reference = self._screen.reference
        return (header.model, header.layer, header.d_model) == (
            reference.model,
            reference.layer,
            reference.d_model,
        )

    def _draws(self, header: BlockHeader) -> list[float]:
        if self.rates.baseline >= 1.0:
            return [0.0] * len(header.position)  # every draw is below 1
        of_requests = [thinning.draw(self._policy.seed, request_id) for request_id in header.request_ids]
        return [of_requests[request] for request in header.request]

    def _pass_on(self, header: BlockHeader, row: int, drawn: float, found: str | None) -> Kept | None:
        passed = thinning.pass_on(drawn, header.probability[row], self.rates, is_found=found is not None)
        if passed is None:
            return None
        only_found = found if passed.baseline_probability == 0.0 else None
        return Kept(
            row, passed.probability, passed.baseline_probability, only_found or header.reason[row], {}
        )

    def _find(self, rows: Rows, finite: list[int]) -> _Findings:
        if self._screen is None or not finite or not self.fits(rows.block.header):
            return _Findings({}, ["unscreened"] * len(finite), (), [])
        is_whole = len(finite) == len(rows.norms)
        vectors = rows.vectors if is_whole else rows.vectors[finite]
        measured = self._screen.measure(vectors, rows.norms if is_whole else rows.norms[finite])
        probes = self._screen.reference.probes
        by_probe = self._screen.probes_found(measured)
        by_anomaly: npt.NDArray[np.bool_] = np.zeros(len(finite), bool)
        if self._policy.anomaly_p_value is not None:
            by_anomaly = measured.p_values <= self._policy.anomaly_p_value
        reasons: dict[int, str] = {}
        verdicts: list[Verdict] = ["massive" if massive else "ordinary" for massive in measured.is_massive]
        for place in np.flatnonzero(by_anomaly).tolist():
            reasons[finite[place]], verdicts[place] = "screen_anomaly", "anomaly"
        for place in np.flatnonzero(by_probe.any(axis=1)).tolist():
            name = probes[int(np.argmax(by_probe[place]))].name
            reasons[finite[place]], verdicts[place] = f"screen_probe_{name}", "probe"
        names = (*_ANOMALY_SCORES, *(f"probe_{probe.name}" for probe in probes))
        scores = np.column_stack([measured.anomaly, measured.p_values, measured.probes]).tolist()
        return _Findings(reasons, verdicts, names, scores)


def check_policy(policy: ScreenPolicy, screen: Screen | None) -> None:
    """Raise PolicyError when the reference cannot give p-values as low as the policy asks for."""
    if screen is None or policy.anomaly_p_value is None:
        return
    least = screen.reference.least_p_value
    if policy.anomaly_p_value < least:
        raise PolicyError(
            f"screen.anomaly_p_value is {policy.anomaly_p_value}: the reference has "
            f"{screen.reference.calibration_n} calibration rows, so no p-value is below {least:.3g}; "
            "fit it on more rows, or ask for more"
        )
