"""The sidecar's loop over a real socket and a real Valkey."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import redis

from subtext_sidecar.contract.counters import Hop, Stratum
from subtext_sidecar.contract.record import (
    MAX_HEADER_BYTES,
    VERSION,
    CoverageCount,
    Record,
    decode,
    encode_coverage,
)
from subtext_sidecar.contract.streams import activations_stream
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import MAX_BLOCK_HEADER_BYTES, decode_block, encode_block
from tests.integration.sidecar.shipper.stage import MIB, letters, over_strata, shipped, totals
from tests.support.letters import letters_of
from tests.support.records import STREAM, block_frames, block_header, status
from tests.support.services import free_port, redis_url_of, start_valkey
from tests.support.vllm.runs import records_of

OPT_IN, UNIFORM, UNKNOWN = Stratum.OPT_IN, Stratum.UNIFORM, Stratum.UNKNOWN

BUFFER_FULL = {"stage": "sidecar", "reason": "buffer_full"}


def without_norm(record: Record) -> Record:
    return Record(msgspec.structs.replace(record.header, norm=0.0), record.vector)


def test_the_rows_of_a_block_become_records_in_the_stream_in_order(start: Any, client: Any) -> None:
    stage = start()
    blocks = [decode_block(*block_frames(rows=25, seed=number)) for number in range(4)]
    for block in blocks:
        stage.send(wire.BLOCK, encode_block(block.header), block.vectors)

    stage.step_until(lambda: client.xlen(STREAM) == 100)

    expected = [record for block in blocks for record in records_of(block)]
    found = shipped(client)
    assert [record.header.norm for record in found] == pytest.approx(
        [record.header.norm for record in expected]
    )
    assert list(map(without_norm, found)) == list(map(without_norm, expected))


def test_counts_of_rows_are_kept_by_stratum(start: Any, client: Any) -> None:
    stage = start()
    stage.send(wire.BLOCK, *block_frames(rows=6))

    stage.step_until(lambda: len(totals(client, "sidecar")) == 4)

    assert totals(client, "sidecar") == {
        (UNIFORM, "rows_received"): 4,
        (UNIFORM, "rows_shipped"): 4,
        (OPT_IN, "rows_received"): 2,
        (OPT_IN, "rows_shipped"): 2,
    }


@pytest.mark.parametrize(
    ("message", "reason", "strata"),
    [
        (lambda: block_frames(v=9), "wrong_version", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: (block_frames()[0], block_frames()[1][:-4]), "bad_length", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: (block_frames()[0], block_frames(seed=1)[1]), "bad_checksum", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: block_frames(probability=[0.0] * 4), "bad_field", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: block_frames(position=[-1, 0, 1, 2]), "bad_field", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: block_frames(request_id=["a\x00", "b"]), "bad_field", {UNIFORM: 2, OPT_IN: 2}),
        (lambda: block_frames(stratum=["gold", "opt_in"]), "bad_field", {UNKNOWN: 4}),
        (lambda: block_frames(request=[9] * 4), "bad_field", {UNKNOWN: 4}),
        (lambda: (b"\x93garbage", b"x"), "bad_field", {UNKNOWN: 1}),
        (lambda: (block_frames()[0][:10], block_frames()[1]), "malformed_header", {UNKNOWN: 1}),
        (lambda: (bytes(MAX_BLOCK_HEADER_BYTES + 1), block_frames()[1]), "oversized", {UNKNOWN: 1}),
    ],
)
def test_a_bad_block_is_one_dead_letter_with_its_reason_and_its_rows_are_counted(
    start: Any,
    client: Any,
    message: Callable[[], tuple[bytes, ...]],
    reason: str,
    strata: dict[str, int],
) -> None:
    stage = start()
    stage.send(wire.BLOCK, *message())
    stage.send(wire.BLOCK, *block_frames(rows=1))

    stage.step_until(lambda: bool(client.xlen(STREAM)) and bool(letters(client)))

    (letter,) = letters(client)
    assert letter[b"reason"].decode() == reason
    assert letter[b"error"]
    stage.step_until(lambda: "rows_shipped" in over_strata(totals(client, "sidecar")))
    found = totals(client, "sidecar")
    assert found.pop((UNIFORM, "rows_shipped")) == 1
    found[UNIFORM, "rows_received"] -= 1
    dropped = f"dropped_invalid_{reason}"
    assert {key: count for key, count in found.items() if count} == {
        (stratum, counter): count
        for stratum, count in strata.items()
        for counter in ("rows_received", dropped)
    }


def test_a_block_that_is_refused_before_any_good_one_is_set_aside_under_the_plugins_stream(
    start: Any, client: Any
) -> None:
    stage = start()
    stage.send(wire.STATUS, wire.encode_status(status(model="m", layer=20)))
    stage.send(wire.BLOCK, b"\x93garbage", b"x")

    stage.step_until(lambda: bool(letters_of(client, activations_stream("m", 20))))

    assert letters(client) == []


def test_a_row_whose_record_no_reader_would_take_is_dropped_alone(start: Any, client: Any) -> None:
    stage = start()
    stage.send(wire.BLOCK, *block_frames(rows=4, request_id=["r" * MAX_HEADER_BYTES, "short"]))

    stage.step_until(lambda: client.xlen(STREAM) == 2)

    stage.step_until(lambda: (OPT_IN, "rows_shipped") in totals(client, "sidecar"))
    assert totals(client, "sidecar") == {
        (UNIFORM, "rows_received"): 2,
        (UNIFORM, "dropped_invalid_oversized"): 2,
        (OPT_IN, "rows_received"): 2,
        (OPT_IN, "rows_shipped"): 2,
    }


def test_a_row_that_is_not_finite_takes_no_other_row_of_its_block_with_it(start: Any, client: Any) -> None:
    stage = start()
    values = np.ones((4, 16), dtype="<f4")
    values[2, 3] = np.nan
    values[3] = 1e30  # large, but a number
    vectors = values.tobytes()
    stage.send(wire.BLOCK, encode_block(block_header(vectors, 4)), vectors)

    stage.step_until(lambda: client.xlen(STREAM) == 3)

    stage.step_until(lambda: len(letters(client)) == 1)
    (letter,) = letters(client)
    assert letter[b"reason"] == b"not_finite"
    stage.step_until(lambda: (OPT_IN, "rows_shipped") in totals(client, "sidecar"))
    assert totals(client, "sidecar") == {
        (UNIFORM, "rows_received"): 2,
        (UNIFORM, "rows_shipped"): 2,
        (OPT_IN, "rows_received"): 2,
        (OPT_IN, "rows_shipped"): 1,
        (OPT_IN, "dropped_invalid_not_finite"): 1,
    }
    assert [record.header.norm for record in shipped(client)] == pytest.approx([4.0, 4.0, 4e30])


def test_rows_and_counts_of_two_tenants_engines_are_kept_apart(start: Any, client: Any) -> None:
    stage = start()
    for seed, tenant in enumerate(("acme", "default", "acme")):
        stage.send(wire.BLOCK, *block_frames(rows=2, seed=seed, tenant=tenant))
    stage.step_until(lambda: client.xlen(STREAM) == 6)
    stage.send(wire.BLOCK, b"\x93garbage", b"x")  # of whoever was heard last
    stage.step_until(lambda: len(letters(client)) == 1)

    tenants = [record.header.tenant for record in shipped(client)]
    assert tenants == ["acme", "acme", "default", "default", "acme", "acme"]
    of_acme = {
        (UNIFORM, "rows_received"): 4,
        (UNIFORM, "rows_shipped"): 4,
        (UNKNOWN, "rows_received"): 1,
        (UNKNOWN, "dropped_invalid_bad_field"): 1,
    }
    of_default = {(UNIFORM, "rows_received"): 2, (UNIFORM, "rows_shipped"): 2}
    stage.step_until(lambda: totals(client, "sidecar", "acme") == of_acme)
    stage.step_until(lambda: totals(client, "sidecar", "default") == of_default)


def test_messages_that_are_not_blocks_are_counted_and_stop_nothing(start: Any, client: Any) -> None:
    stage = start()
    stage.send(b"?", b"x")
    stage.send(wire.STATUS, b"not a status")
    stage.send(wire.COVERAGE, b"not a count")
    stage.send(wire.STATUS)
    stage.send(wire.BLOCK, b"no vectors")
    stage.send(wire.BLOCK, *block_frames(rows=1))

    stage.step_until(lambda: client.xlen(STREAM) == 1)

    name = "subtext_sidecar_invalid_messages_total"
    assert [stage.value(name, kind=kind) for kind in ("unknown", "status", "coverage")] == [3, 1, 1]


def test_the_plugins_status_and_coverage_are_relayed(start: Any, client: Any) -> None:
    stage = start()
    count = CoverageCount(
        v=VERSION,
        source="p",
        hop=Hop.PLUGIN,
        model="m",
        stratum=OPT_IN,
        minute=9,
        counts={"requests_seen": 4, "rows_sampled": 3},
    )
    stage.send(wire.STATUS, wire.encode_status(status()))
    stage.send(wire.COVERAGE, encode_coverage(count))

    relayed = {(OPT_IN, "requests_seen"): 4, (OPT_IN, "rows_sampled"): 3}
    stage.step_until(lambda: totals(client, "plugin") == relayed)

    assert stage.value("subtext_capture_enabled", model="m", reason="ok") == 1
    assert stage.value("subtext_requests_seen_total", model="m", stratum=OPT_IN) == 4


def test_records_wait_for_redis_and_drops_are_counted_when_the_buffer_is_full(start: Any) -> None:
    stage = start(url=redis_url_of(free_port()), buffer_bytes=MIB)
    sent = 200
    for _ in range(sent // 4):
        stage.send(wire.BLOCK, *block_frames(rows=4, d_model=2048))

    stage.step_until(lambda: stage.value("subtext_activations_dropped_total", **BUFFER_FULL) > 0)
    stage.step_until(
        lambda: stage.value("subtext_activations_dropped_total", **BUFFER_FULL) + len(stage.buffer) == sent
    )

    assert not stage.health.is_redis_up
    assert stage.health.is_alive()
    assert 0.98 * MIB < stage.value("subtext_sidecar_buffer_bytes") <= MIB


def test_records_are_shipped_when_redis_comes_back(start: Any, tmp_path: Path) -> None:
    port = free_port()
    stage = start(url=redis_url_of(port))
    stage.send(wire.BLOCK, *block_frames(rows=50))
    stage.step_until(lambda: stage.value("subtext_ship_errors_total", stream=STREAM) >= 2)

    server = start_valkey(tmp_path, port)
    try:
        with redis.Redis(port=port) as late:
            stage.step_until(lambda: late.xlen(STREAM) == 50)
            stage.step_until(lambda: over_strata(totals(late, "sidecar")).get("rows_shipped") == 50)
            assert over_strata(totals(late, "sidecar")) == {"rows_received": 50, "rows_shipped": 50}
        assert stage.health.is_redis_up
    finally:
        server.stop()


def test_the_stream_is_bounded_by_bytes_and_what_is_trimmed_is_counted(start: Any, client: Any) -> None:
    stage = start(buffer_bytes=16 * MIB, stream_bytes=MIB)
    for _ in range(40):
        stage.send(wire.BLOCK, *block_frames(rows=10, d_model=2048))

    stage.step_until(lambda: over_strata(totals(client, "sidecar")).get("rows_shipped") == 400)

    kept, vector_bytes = client.xlen(STREAM), 2048 * 4
    assert kept * vector_bytes <= MIB + vector_bytes
    assert kept > 0.8 * MIB / (vector_bytes + 512)
    trimmed = (UNKNOWN, "dropped_trimmed")
    stage.step_until(lambda: totals(client, "sidecar").get(trimmed) == 400 - kept)


def test_draining_ships_what_the_socket_and_the_buffer_hold(start: Any, client: Any) -> None:
    stage = start()
    stage.send(wire.BLOCK, *block_frames(rows=1))
    stage.step_until(lambda: client.xlen(STREAM) == 1)
    for _ in range(300):
        stage.send(wire.BLOCK, *block_frames(rows=1))

    stage.step_until(lambda: stage.receiver.wait(1.0))
    stage.sidecar.drain(5.0)

    assert totals(client, "sidecar") == {(UNIFORM, "rows_received"): 301, (UNIFORM, "rows_shipped"): 301}


def test_draining_without_redis_ends_in_time_and_accounts_for_what_is_lost(start: Any) -> None:
    stage = start(url=redis_url_of(free_port()))
    stage.send(wire.BLOCK, *block_frames(rows=3))
    stage.step_until(lambda: stage.value("subtext_ship_errors_total", stream=STREAM) >= 1)

    started = time.monotonic()
    stage.sidecar.drain(1.0)

    assert time.monotonic() - started < 5
    assert stage.value("subtext_activations_dropped_total", stage="sidecar", reason="redis_error") == 3


def test_models_and_layers_go_to_streams_of_their_own(start: Any, client: Any) -> None:
    stage = start()
    kinds = [("org/a:b{c}", 1), ("org/a:b{c}", 2), ("smollm2", 20)]
    for _ in range(3):
        for model, layer in kinds:
            stage.send(wire.BLOCK, *block_frames(model=model, layer=layer))
    names = [activations_stream(*kind) for kind in kinds]

    stage.step_until(lambda: [client.xlen(name) for name in names] == [12, 12, 12])
    stage.step_until(
        lambda: [stage.value("subtext_stream_backlog_entries", stream=name) for name in names] == [12] * 3
    )

    for name, kind in zip(names, kinds, strict=True):
        records = [decode(fields[b"h"], fields[b"a"]) for _, fields in client.xrange(name)]
        assert {(one.header.model, one.header.layer) for one in records} == {kind}
