import msgspec
from prometheus_client import CollectorRegistry

from subtext_sidecar.contract.counters import Hop, Stratum
from subtext_sidecar.contract.record import VERSION, CoverageCount
from subtext_sidecar.local.capture_view import Beginning, CaptureView
from subtext_sidecar.local.wire import OVERHEAD_BUCKETS_SECONDS, OverheadCounts
from tests.support.records import status

OPT_IN, UNIFORM = Stratum.OPT_IN, Stratum.UNIFORM

OF_UNIFORM = {"model": "m", "stratum": UNIFORM}


def coverage(
    hop: Hop = Hop.PLUGIN, minute: int = 5, stratum: str = UNIFORM, **counts: int
) -> CoverageCount:
    return CoverageCount(
        v=VERSION, source=f"{hop}-1", hop=hop, model="m", stratum=stratum, minute=minute, counts=counts
    )


def view(beginning: Beginning | None = None) -> tuple[CaptureView, CollectorRegistry]:
    registry = CollectorRegistry()
    one = CaptureView(beginning)
    registry.register(one)
    return one, registry


def enabled(registry: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "subtext_capture_enabled"
    }


def test_counts_of_two_tenants_of_one_source_are_both_shown() -> None:
    one, registry = view()
    one.update_coverage(coverage(requests_seen=3))
    one.update_coverage(msgspec.structs.replace(coverage(requests_seen=2), tenant="acme"))
    one.update_coverage(coverage(requests_seen=4))

    assert registry.get_sample_value("subtext_requests_seen_total", OF_UNIFORM) == 6


def test_a_plugin_that_was_never_heard_is_reported_as_silent() -> None:
    _, registry = view()

    assert enabled(registry) == {"plugin_silent": 0.0}


def test_capture_shows_as_on_then_off_with_the_reason_then_silent() -> None:
    one, registry = view()
    one.update_status(status(), now=100.0)
    one.tick(101.0, 5)
    assert enabled(registry) == {"ok": 1.0}

    one.update_status(status(reason="error_execute_model"), now=102.0)
    assert enabled(registry) == {"error_execute_model": 0.0}

    one.tick(120.0, 5)
    assert enabled(registry) == {"plugin_silent": 0.0}


def test_a_replaced_engine_is_forgotten_and_a_silent_replica_is_not_hidden() -> None:
    one, registry = view()
    one.update_status(status("old"), now=0.0)
    one.update_status(status("new"), now=30.0)
    one.tick(31.0, 5)
    assert enabled(registry) == {"plugin_silent": 0.0}

    one.update_status(status("new"), now=70.0)
    one.tick(71.0, 5)
    assert enabled(registry) == {"ok": 1.0}


def test_repeated_and_reordered_counts_are_added_once() -> None:
    one, registry = view()
    for requests in (3, 5, 4, 5):
        one.update_coverage(coverage(requests_seen=requests))
    one.update_coverage(coverage(minute=6, requests_seen=2))

    assert (
        registry.get_sample_value("subtext_requests_seen_total", {"model": "m", "stratum": "uniform"}) == 7
    )


def test_requests_are_shown_by_stratum_and_rows_over_all_of_them() -> None:
    one, registry = view()
    one.update_status(status(), now=0.0)
    one.update_coverage(coverage(requests_seen=10, rows_handed_over=3))
    one.update_coverage(coverage(stratum=OPT_IN, requests_seen=2, rows_handed_over=4))

    seen = {
        stratum: registry.get_sample_value(
            "subtext_requests_seen_total", {"model": "m", "stratum": stratum}
        )
        for stratum in (UNIFORM, OPT_IN)
    }
    assert seen == {UNIFORM: 10, OPT_IN: 2}
    captured = registry.get_sample_value(
        "subtext_activations_captured_total", {"model": "m", "layer": "20"}
    )
    assert captured == 7


def test_every_reason_to_drop_shows_before_it_happens() -> None:
    _, registry = view()

    for stage, reason in (("plugin", "ring_full"), ("plugin", "budget"), ("sidecar", "buffer_full")):
        labels = {"stage": stage, "reason": reason}
        assert registry.get_sample_value("subtext_activations_dropped_total", labels) == 0


def test_drops_of_both_hops_share_one_metric() -> None:
    one, registry = view()
    one.update_coverage(coverage(dropped_queue_full=2))
    one.update_coverage(coverage(Hop.SIDECAR, dropped_trimmed=3, rows_shipped=9))

    def dropped(stage: str, reason: str) -> float | None:
        return registry.get_sample_value(
            "subtext_activations_dropped_total", {"stage": stage, "reason": reason}
        )

    assert (dropped("plugin", "queue_full"), dropped("sidecar", "trimmed")) == (2, 3)
    assert registry.get_sample_value("subtext_activations_shipped_total", {"model": "m"}) == 9


def test_errors_overhead_and_probability_come_from_the_heartbeat() -> None:
    one, registry = view()
    one.update_status(status(errors={"execute_model": 1}), now=0.0)

    assert registry.get_sample_value("subtext_capture_errors_total", {"reason": "execute_model"}) == 1
    steps = {
        sampled: registry.get_sample_value("subtext_capture_overhead_seconds_count", {"sampled": sampled})
        for sampled in ("none", "some")
    }
    assert steps == {"none": 7, "some": 1}
    assert (
        registry.get_sample_value(
            "subtext_sampling_probability_ratio", {"model": "m", "stratum": "uniform"}
        )
        == 0.5
    )


def counters(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Every sample that may only grow, by its name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def overhead(steps: int) -> dict[str, OverheadCounts]:
    spread = (steps, *[1] * len(OVERHEAD_BUCKETS_SECONDS))
    return {"none": OverheadCounts(counts=spread, sum_seconds=steps / 1000)}


def test_no_counter_falls_when_one_of_two_engines_is_replaced() -> None:
    one, registry = view()
    one.update_status(status("a", errors={"sender": 2}, overhead=overhead(1_000_000)), now=0.0)
    one.update_status(status("b", errors={"sender": 1}, overhead=overhead(1_000_000)), now=0.0)
    before = counters(registry)

    one.update_status(status("c", overhead=overhead(10)), now=100.0)
    one.update_status(status("b", errors={"sender": 1}, overhead=overhead(1_000_005)), now=100.0)
    one.tick(101.0, 5)

    after = counters(registry)
    assert all(after[name] >= value for name, value in before.items())
    assert after["subtext_capture_errors_total", "sender"] == 3
    buckets = len(OVERHEAD_BUCKETS_SECONDS)
    assert after["subtext_capture_overhead_seconds_count", "none"] == 2_000_015 + 3 * buckets


def test_what_a_restarted_sidecar_hears_again_is_no_growth() -> None:
    one, registry = view(Beginning(now=1000.0, unix_seconds=6000.0))
    one.update_status(status(errors={"sender": 3}, overhead=overhead(1000)), now=1002.0)
    for minute in range(85, 100):  # what a plugin repeats
        one.update_coverage(coverage(minute=minute, dropped_socket_full=100))
    assert {value for name, value in counters(registry).items() if "dropped" in name[0]} == {0}
    assert counters(registry)["subtext_capture_errors_total", "sender"] == 0

    one.update_status(status(errors={"sender": 4}, overhead=overhead(1001)), now=1010.0)
    one.update_coverage(coverage(minute=99, dropped_socket_full=101))
    one.update_coverage(coverage(minute=100, dropped_socket_full=7))

    after = counters(registry)
    assert after["subtext_activations_dropped_total", "plugin", "socket_full"] == 8
    assert after["subtext_capture_errors_total", "sender"] == 1
    assert after["subtext_capture_overhead_seconds_count", "none"] == 1


def test_an_error_right_after_the_sidecar_began_counts_and_one_right_before_does_not() -> None:
    one, registry = view(Beginning(now=1000.0, unix_seconds=6000.0))

    errors, times = {"sender": 2, "load_model": 1}, {"sender": 6000.5, "load_model": 5999.5}
    one.update_status(status(errors=errors, error_times=times), now=1002.0)

    assert counters(registry)["subtext_capture_errors_total", "sender"] == 1
    assert counters(registry)["subtext_capture_errors_total", "load_model"] == 0


def test_rows_of_before_that_the_sidecar_itself_counts_are_growth() -> None:
    one, registry = view(Beginning(now=1000.0, unix_seconds=6000.0))

    one.update_coverage(coverage(Hop.SIDECAR, minute=90, rows_shipped=5))

    assert registry.get_sample_value("subtext_activations_shipped_total", {"model": "m"}) == 5


def test_an_engine_that_starts_later_counts_from_its_beginning() -> None:
    one, registry = view(Beginning(now=1000.0, unix_seconds=6000.0))

    one.update_status(status("new", errors={"load_model": 1}), now=1100.0)

    assert registry.get_sample_value("subtext_capture_errors_total", {"reason": "load_model"}) == 1


def test_what_clients_can_make_grow_is_shown_from_zero_by_reason() -> None:
    one, registry = view()
    one.update_coverage(coverage(requests_seen=9))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"model": "m", **labels})

    assert value("subtext_capture_unobservable_total", reason="prefix_cached") == 0
    assert value("subtext_requests_unheeded_total", reason="opt_out") == 0
    assert value("subtext_positions_repeated_total") == 0

    one.update_coverage(
        coverage(unobservable_prefix_cached=3, opt_out_not_honoured=2, ignored_rv=1, positions_repeated=7)
    )

    assert value("subtext_capture_unobservable_total", reason="prefix_cached") == 3
    assert value("subtext_requests_unheeded_total", reason="opt_out") == 2
    assert value("subtext_requests_unheeded_total", reason="rv") == 1
    assert value("subtext_positions_repeated_total") == 7
