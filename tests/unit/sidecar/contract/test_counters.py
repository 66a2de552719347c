"""Names on the wire and in the store stay what they are; what the names say adds up."""

from itertools import pairwise

import msgspec
import pytest

from subtext_sidecar.contract import counters, equations
from subtext_sidecar.contract.counters import COUNTERS, Hop, LossKind, PluginCounter, Unit

# Stored counts keep these names: add a line, and change none.
NAMES = {
    "plugin": """
        requests_seen requests_sampled requests_continued requests_prefilled requests_prefilled_sampled
        requests_traced requests_adapted
        opt_in_not_honoured opt_out_not_honoured
        ignored_wish ignored_kv_transfer ignored_transfer_id
        ignored_canary ignored_canary_replayed ignored_canary_excess ignored_canary_altered
        requests_of_subject subject_missing subject_not_honoured ignored_subject
        ignored_traceparent ignored_tracestate ignored_rv ignored_th ignored_inconsistent_th
        unobservable_unreadable unobservable_interrupted unobservable_capture_off
        unobservable_prefill_off
        unobservable_prefix_cached unobservable_drafted positions_repeated
        rows_sampled rows_handed_over
        dropped_queue_full dropped_ring_full dropped_socket_full dropped_oversized dropped_budget
        dropped_error dropped_position_mismatch dropped_embedded dropped_after_end
    """,
    "sidecar": """
        rows_received rows_shipped thinned screened_anomaly screened_probe
        dropped_buffer_full dropped_redis_error dropped_trimmed
        dropped_invalid_malformed_header dropped_invalid_wrong_version dropped_invalid_bad_field
        dropped_invalid_oversized dropped_invalid_bad_length dropped_invalid_bad_checksum
        dropped_invalid_not_finite
    """,
    "worker": """
        rows_consumed rows_decoded rows_duplicate rows_redelivered rows_trimmed_but_read
        dead_lettered_malformed_header dead_lettered_wrong_version dead_lettered_bad_field
        dead_lettered_oversized dead_lettered_bad_length dead_lettered_bad_checksum dead_lettered_not_finite
        dead_lettered_missing_field dead_lettered_zero_vector dead_lettered_wrong_decoder
        dead_lettered_decode_failed dead_lettered_store_refused dead_lettered_too_many_deliveries
        dead_lettered_too_many_tenants
    """,
}
EQUATIONS = {
    "plugin": "rows_sampled = rows_handed_over + dropped_*",
    "socket": "rows_handed_over = rows_received",
    "sidecar": "rows_received = rows_shipped + thinned + dropped_* except dropped_trimmed",
    "stream": "rows_shipped + rows_trimmed_but_read = rows_consumed + dropped_trimmed",
    "worker": "rows_consumed = rows_decoded + rows_duplicate + dead_lettered_*",
}


def test_names_of_counters_strata_and_hops_are_those_on_the_wire() -> None:
    by_hop = {str(hop): [str(name) for name in COUNTERS if name.hop == hop] for hop in Hop}

    assert by_hop == {hop: names.split() for hop, names in NAMES.items()}
    assert [*map(str, counters.Stratum)] == ["uniform", "opt_in", "opt_out", "canary", "unknown"]
    assert [*map(str, LossKind)] == ["dropped", "dead_lettered", "unobservable"]


def test_a_name_goes_over_the_wire_as_its_text() -> None:
    counts = {PluginCounter.ROWS_SAMPLED: 3}

    assert msgspec.msgpack.encode(counts) == msgspec.msgpack.encode({"rows_sampled": 3})
    assert f"{PluginCounter.ROWS_SAMPLED}" == "rows_sampled"


def test_no_two_counters_share_a_name() -> None:
    assert len(set(COUNTERS)) == len(COUNTERS)


def test_every_meaning_is_one_sentence() -> None:
    explained = (
        *COUNTERS,
        *counters.Stratum,
        *LossKind,
        *counters.RejectReason,
        *counters.DeadLetterReason,
        *counters.TraceFault,
        *equations.EQUATIONS,
    )
    for one in explained:
        assert one.meaning[0].isupper(), one
        assert one.meaning.count(".") == 1, one
        assert one.meaning.endswith("."), one


@pytest.mark.parametrize(
    ("counter", "lost"),
    [
        ("dropped_queue_full", ("dropped", "queue_full")),
        ("dead_lettered_of_another_version", ("dead_lettered", "of_another_version")),
        ("unobservable_drafted", ("unobservable", "drafted")),
        ("thinned", None),
        ("dropped", None),
    ],
)
def test_a_loss_is_told_by_its_name(counter: str, lost: tuple[str, str] | None) -> None:
    assert counters.loss_of(counter) == lost


def test_equations_are_written_as_rest_answers_them() -> None:
    assert {str(one.place): str(one) for one in equations.EQUATIONS} == EQUATIONS
    assert [one.place for one in equations.EQUATIONS] == list(equations.Place)


def test_what_goes_out_of_one_place_goes_into_the_next() -> None:
    """Else rows could vanish between two equations without making either unequal."""
    for before, after in pairwise(equations.EQUATIONS):
        assert after.rows_in[0] in before.rows_out


def test_every_counted_row_that_is_lost_is_on_one_side_of_one_equation() -> None:
    for counter in COUNTERS:
        sides = [
            side
            for equation in equations.EQUATIONS
            for side in (equation.rows_in, equation.rows_out)
            if equations.has(side, counter.hop, counter)
        ]
        lost = counters.loss_of(counter)
        assert len(sides) <= 2, counter
        if counter.unit is Unit.ROWS and lost is not None:
            assert len(sides) == 1, counter


def test_a_name_counts_at_its_own_hop_alone() -> None:
    plugin = equations.EQUATIONS[0]

    assert equations.has(plugin.rows_out, "plugin", "dropped_of_another_version")
    assert not equations.has(plugin.rows_out, "sidecar", "dropped_of_another_version")
    assert not equations.has(plugin.rows_in, "sidecar", "rows_sampled")
