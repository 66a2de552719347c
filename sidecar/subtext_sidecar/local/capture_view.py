"""Status and coverage messages as Prometheus metrics.

The plugin feeds one view for its own port. The sidecar feeds one with what it receives and with
its own ledger, so the sidecar's port shows both hops and an operator needs to scrape only that.

A counter here never falls: it holds what grew since this process began, whichever engines come and go.
A plugin tells all it ever counted, and repeats it for a sidecar that was restarted. What it had counted
before is where its growth begins, not growth.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from subtext_sidecar.contract.counters import (
    COUNTERS,
    UNHEEDED,
    Hop,
    LossKind,
    PluginCounter,
    SidecarCounter,
    Stratum,
    loss_of,
)
from subtext_sidecar.contract.record import CoverageCount
from subtext_sidecar.local.ledger import SECONDS_PER_MINUTE, Cell, cell_of
from subtext_sidecar.local.wire import OVERHEAD_BUCKETS_SECONDS, CaptureStatus, OverheadCounts, Sampled

SILENT_AFTER_SECONDS: Final = 10.0
_FORGET_AFTER_SECONDS: Final = 60.0
_KEEP_MINUTES: Final = 24 * 60
_KEEP_SECONDS: Final = _KEEP_MINUTES * 60.0
# Shown from the start with 0, because a rate never sees the step in which a series appears.
_HOOKS: Final = ("load_model", "execute_model", "sample_tokens", "sender")
_NONE: Final = OverheadCounts(counts=(0,) * (len(OVERHEAD_BUCKETS_SECONDS) + 1), sum_seconds=0.0)
_DROPS: Final = tuple(
    (counter.hop, lost.reason)
    for counter in COUNTERS
    if (lost := loss_of(counter)) is not None and lost.kind is LossKind.DROPPED
)
_UNOBSERVABLE: Final = tuple(
    lost.reason
    for counter in PluginCounter
    if (lost := loss_of(counter)) is not None and lost.kind is LossKind.UNOBSERVABLE
)


class _StatusReport(NamedTuple):
    status: CaptureStatus
    at: float


class Beginning(NamedTuple):
    """When the process began whose counters these are."""

    now: float  # monotonic seconds, as `now` everywhere here
    unix_seconds: float

    @property
    def minute(self) -> int:
        """Return the minute of the beginning."""
        return int(self.unix_seconds // SECONDS_PER_MINUTE)


class _PluginTotals(NamedTuple):
    """What a plugin said last of all it counted since its own start."""

    errors: Counter[str]
    overhead: dict[Sampled, OverheadCounts]
    at: float


class _Stage(NamedTuple):
    hop: Hop
    model: str
    stratum: str


class CaptureView(Collector):
    """Collects what ledgers and plugins say. ``now`` is in monotonic seconds, given by the caller."""

    def __init__(self, beginning: Beginning | None = None) -> None:
        """With ``beginning``, plugins may be older than this process; else all is heard from the first."""
        self._beginning = beginning
        self._lock = threading.Lock()
        self._now = 0.0
        self._heard: dict[str, _StatusReport] = {}
        self._minutes: dict[tuple[str, Cell], dict[str, int]] = {}
        self._totals: dict[_Stage, Counter[str]] = {}
        self._known: dict[str, _PluginTotals] = {}  # by source
        self._errors: Counter[str] = Counter(dict.fromkeys(_HOOKS, 0))
        self._overhead: dict[Sampled, OverheadCounts] = {}

    def update_status(self, status: CaptureStatus, now: float) -> None:
        """Take a heartbeat."""
        with self._lock:
            self._add_growth(status, now)
            self._heard[status.source] = _StatusReport(status, now)
            self._totals.setdefault(_Stage(Hop.PLUGIN, status.model, Stratum.UNIFORM), Counter())

    def update_coverage(self, count: CoverageCount) -> None:
        """Add what is new in a cumulative count; repeated and reordered messages change nothing."""
        key = (count.source, cell_of(count))
        with self._lock:
            known = self._minutes.setdefault(key, {})
            is_older = self._beginning is not None and count.minute < self._beginning.minute
            if is_older and count.hop is Hop.PLUGIN:
                for counter, value in count.counts.items():
                    known.setdefault(counter, value)
            totals = self._totals.setdefault(_Stage(count.hop, count.model, count.stratum), Counter())
            for counter, value in count.counts.items():
                if (grown := value - known.get(counter, 0)) > 0:
                    known[counter] = value
                    totals[counter] += grown

    def tick(self, now: float, now_minute: int) -> None:
        """Move time on: silence shows, and sources that were replaced are forgotten."""
        with self._lock:
            self._now = now
            alive = {
                heard.status.model
                for heard in self._heard.values()
                if now - heard.at <= SILENT_AFTER_SECONDS
            }
            for source, heard in list(self._heard.items()):
                if heard.status.model in alive and now - heard.at > _FORGET_AFTER_SECONDS:
                    del self._heard[source]
            for source in [source for source, one in self._known.items() if now - one.at > _KEEP_SECONDS]:
                del self._known[source]
            for key in [key for key in self._minutes if key[1].minute < now_minute - _KEEP_MINUTES]:
                del self._minutes[key]

    def _add_growth(self, status: CaptureStatus, now: float) -> None:
        said = _PluginTotals(Counter(status.errors), status.overhead, now)
        known = self._known.get(status.source)
        if known is None:
            # A plugin speaks every two seconds: one that speaks right after we began was there before.
            began = self._beginning
            is_older = began is not None and now - began.now <= SILENT_AFTER_SECONDS
            known = (
                _of_before(said, status, began) if began and is_older else _PluginTotals(Counter(), {}, now)
            )
        self._errors.update(said.errors - known.errors)
        for sampled, counts in said.overhead.items():
            total, before = self._overhead.get(sampled, _NONE), known.overhead.get(sampled, _NONE)
            self._overhead[sampled] = _grown(total, before, counts)
        self._known[status.source] = said

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        with self._lock:
            heard = list(self._heard.values())
            totals = {stage: Counter(counts) for stage, counts in self._totals.items()}
            now, errors, overhead = self._now, Counter(self._errors), dict(self._overhead)
        yield from _status_metrics(heard, now)
        yield _errors(errors)
        yield _overhead(overhead)
        yield from _coverage_metrics(totals, {one.status.model: one.status.layer for one in heard})

    def describe(self) -> list[Metric]:
        """Describe nothing: metrics appear with the first message."""
        return []


def _status_metrics(heard: list[_StatusReport], now: float) -> Iterator[Metric]:
    yield _enabled(heard, now)
    probability = GaugeMetricFamily(
        "subtext_sampling_probability_ratio",
        "Probability with which a request is sampled, by the policy in force.",
        labels=["model", "stratum"],
    )
    for model, status in {one.status.model: one.status for one in heard}.items():
        probability.add_metric([model, Stratum.UNIFORM], status.sampling_probability)
    yield probability


def _errors(counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(
        "subtext_capture_errors", "Errors inside the capture hooks, by hook.", labels=["reason"]
    )
    for reason, count in counts.items():
        family.add_metric([reason], count)
    return family


def _of_before(said: _PluginTotals, status: CaptureStatus, began: Beginning) -> _PluginTotals:
    """Return what the plugin had counted when we began, but for overhead, of which no time is told.

    Of a hook's errors the time of the last is told, so that one of after our beginning is never missed.
    """
    since = Counter(hook for hook, at in status.error_times.items() if at >= began.unix_seconds)
    return said._replace(errors=said.errors - since)


def _grown(total: OverheadCounts, before: OverheadCounts, now: OverheadCounts) -> OverheadCounts:
    """Return the total with what grew; a source that counts anew has a name of its own."""
    grown = [max(0, count - known) for count, known in zip(now.counts, before.counts, strict=True)]
    return OverheadCounts(
        counts=tuple(count + more for count, more in zip(total.counts, grown, strict=True)),
        sum_seconds=total.sum_seconds + max(0.0, now.sum_seconds - before.sum_seconds),
    )


def _enabled(heard: list[_StatusReport], now: float) -> Metric:
    """One series a model: 1 when every live engine captures, else 0 with the reason."""
    family = GaugeMetricFamily(
        "subtext_capture_enabled",
        "1 while capture is on, 0 with the reason why not.",
        labels=["model", "reason"],
    )
    reasons: dict[str, str] = {}
    for one in heard:
        silent = now - one.at > SILENT_AFTER_SECONDS
        reason = "plugin_silent" if silent else one.status.reason
        if reasons.get(one.status.model, "ok") == "ok":
            reasons[one.status.model] = reason
    for model, reason in (reasons or {"": "plugin_silent"}).items():
        family.add_metric([model, reason], 1.0 if reason == "ok" else 0.0)
    return family


def _overhead(totals: dict[Sampled, OverheadCounts]) -> Metric:
    family = HistogramMetricFamily(
        "subtext_capture_overhead_seconds",
        "Host time that the capture hooks add to one engine step, by whether a row was taken in it.",
        labels=["sampled"],
    )
    bounds = [*(str(bound) for bound in OVERHEAD_BUCKETS_SECONDS), "+Inf"]
    for sampled, total in totals.items():
        buckets = list(zip(bounds, accumulate(total.counts), strict=True))
        family.add_metric([sampled], buckets=buckets, sum_value=total.sum_seconds)
    return family


def _coverage_metrics(totals: dict[_Stage, Counter[str]], layers: dict[str, int]) -> Iterator[Metric]:
    seen = CounterMetricFamily(
        "subtext_requests_seen", "Requests that reached the engine.", labels=["model", "stratum"]
    )
    sampled = CounterMetricFamily(
        "subtext_requests_sampled", "Requests chosen for sampling.", labels=["model", "stratum"]
    )
    captured = CounterMetricFamily(
        "subtext_activations_captured",
        "Rows that the plugin handed to the socket.",
        labels=["model", "layer"],
    )
    shipped = CounterMetricFamily(
        "subtext_activations_shipped", "Rows that the sidecar wrote to the stream.", labels=["model"]
    )
    for stage, counts in totals.items():
        if stage.hop is Hop.PLUGIN:
            seen.add_metric([stage.model, stage.stratum], counts[PluginCounter.REQUESTS_SEEN])
            sampled.add_metric([stage.model, stage.stratum], counts[PluginCounter.REQUESTS_SAMPLED])
    plugin = _by_model(totals, Hop.PLUGIN)
    for model, counts in plugin.items():
        captured.add_metric([model, str(layers.get(model, -1))], counts[PluginCounter.ROWS_HANDED_OVER])
    for model, counts in _by_model(totals, Hop.SIDECAR).items():
        shipped.add_metric([model], counts[SidecarCounter.ROWS_SHIPPED])
    yield from (seen, sampled, captured, shipped, _dropped(totals))
    yield from (_unobservable(plugin), _unheeded(plugin), _repeated(plugin))


def _by_model(totals: dict[_Stage, Counter[str]], hop: Hop) -> dict[str, Counter[str]]:
    sums: dict[str, Counter[str]] = {}
    for stage, counts in totals.items():
        if stage.hop == hop:
            sums.setdefault(stage.model, Counter()).update(counts)
    return sums


def _dropped(totals: dict[_Stage, Counter[str]]) -> Metric:
    family = CounterMetricFamily(
        "subtext_activations_dropped", "Sampled rows that were dropped.", labels=["stage", "reason"]
    )
    drops: Counter[tuple[str, str]] = Counter(dict.fromkeys(_DROPS, 0))
    for stage, counts in totals.items():
        for counter, count in counts.items():
            lost = loss_of(counter)
            if lost is not None and lost.kind is LossKind.DROPPED:
                drops[stage.hop, lost.reason] += count
    for labels, count in drops.items():
        family.add_metric(labels, count)
    return family


def _unobservable(plugin: dict[str, Counter[str]]) -> Metric:
    family = CounterMetricFamily(
        "subtext_capture_unobservable",
        "What sampling wanted and cannot see, by reason: requests or rows.",
        labels=["model", "reason"],
    )
    for model, counts in plugin.items():
        by_reason = Counter(dict.fromkeys(_UNOBSERVABLE, 0))
        for counter, count in counts.items():
            lost = loss_of(counter)
            if lost is not None and lost.kind is LossKind.UNOBSERVABLE:
                by_reason[lost.reason] += count
        for reason, count in by_reason.items():
            family.add_metric([model, reason], count)
    return family


def _unheeded(plugin: dict[str, Counter[str]]) -> Metric:
    family = CounterMetricFamily(
        "subtext_requests_unheeded",
        "Requests whose wish, trace or data subject was not heeded, by what was wrong or not allowed.",
        labels=["model", "reason"],
    )
    for model, counts in plugin.items():
        for reason, counter in UNHEEDED.items():
            family.add_metric([model, reason], counts[counter])
    return family


def _repeated(plugin: dict[str, Counter[str]]) -> Metric:
    family = CounterMetricFamily(
        "subtext_positions_repeated",
        "Positions that were computed again after a preemption.",
        labels=["model"],
    )
    for model, counts in plugin.items():
        family.add_metric([model], counts[PluginCounter.POSITIONS_REPEATED])
    return family
