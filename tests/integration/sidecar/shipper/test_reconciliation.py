"""No row is lost without a count: at every moment, in every stratum, whatever breaks."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.record import Record, sample_id
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import checksums, encode_block
from tests.integration.sidecar.shipper.stage import MIB, Stage, over_strata, shipped, totals
from tests.support.records import STREAM, block_frames, block_header
from tests.support.screens import benign, reference
from tests.support.services import free_port, start_valkey

OPT_IN, UNIFORM, UNKNOWN = Stratum.OPT_IN, Stratum.UNIFORM, Stratum.UNKNOWN

D_MODEL = 512
POLICY = '{"screen": {"baseline_rate": 0.5}}'

Counts = Counter[tuple[str, str]]  # by stratum and counter


class Store:
    """A Valkey that can be killed and started again, empty."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._server = start_valkey(self._folder, self.port)
        self.client: Any = redis.Redis(port=self.port)

    def kill(self) -> None:
        self.client.close()
        self._server.terminate()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(tmp_path)
    yield one
    one.kill()


class Load:
    """Blocks of all kinds, and how many rows of which stratum a plugin would have counted for them."""

    def __init__(self) -> None:
        self.handed_over: Counter[str] = Counter()
        self._random = np.random.default_rng(0)
        self._vectors = benign(400, D_MODEL, seed=3)
        self._number = 0

    def block(self) -> tuple[bytes, bytes]:
        """Mostly good; now and then foreign, not finite, broken on the way or garbage."""
        self._number += 1
        rows = int(self._random.integers(1, 13))
        values = self._vectors[int(self._random.integers(380)) :][:rows].copy()
        kind = self._random.random()
        if kind < 0.1:
            values[0] = np.nan
        elif kind < 0.3:
            values[-1] = np.random.default_rng(self._number).standard_normal(D_MODEL)
        vectors = values.astype("<f4").tobytes()
        requests = (rows + 1) // 2
        header = block_header(
            vectors,
            rows,
            request_id=[f"r{self._number}-{request}" for request in range(requests)],
            checksum=[0] * rows if 0.9 < kind < 0.95 else checksums(vectors, rows),
        )
        if kind >= 0.98:
            self.handed_over[UNKNOWN] += 1
            return b"garbage", vectors
        self.handed_over.update(header.requests[request].stratum for request in header.request)
        return encode_block(header), vectors


def counted(stage: Stage) -> Counts:
    """The ledger over all minutes."""
    counts: Counts = Counter()
    for minute in stage.ledger.known():
        for counter, value in minute.counts.items():
            counts[minute.stratum, counter] += value
    return counts


def assert_balanced(stage: Stage) -> None:
    waiting = Counter(entry.cell.stratum for entry in stage.buffer.oldest(len(stage.buffer)))
    counts = counted(stage)
    for stratum in (UNIFORM, OPT_IN, UNKNOWN):
        came_out = sum(
            value
            for (name, counter), value in counts.items()
            if name == stratum
            and (counter in {"rows_shipped", "thinned"} or counter.startswith("dropped_"))
        )
        assert counts[stratum, "rows_received"] == came_out + waiting[stratum], (stratum, counts)


def send(stage: Stage, load: Load, blocks: int) -> None:
    """Send and turn, and look at the ledger after every turn."""
    for _ in range(blocks // 10):
        for _ in range(10):
            stage.send(wire.BLOCK, *load.block())
        stage.sidecar.step(0.0)
        assert_balanced(stage)


def test_every_row_is_accounted_for_while_valkey_dies_and_the_buffer_overflows(
    start: Any, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "policy.json").write_text(POLICY)
    stage: Stage = start(
        url=f"redis://127.0.0.1:{store.port}/0",
        buffer_bytes=MIB // 2,
        detector=Detector(reference(D_MODEL)),
        policy_file=tmp_path / "policy.json",
    )
    load = Load()
    send(stage, load, 200)
    for connection in store.client.client_list(_type="normal"):
        if int(connection["id"]) != store.client.client_id():
            store.client.client_kill_filter(_id=connection["id"])  # under its feet
    send(stage, load, 100)
    stage.step_until(lambda: not len(stage.buffer))
    first_life = shipped(store.client)

    store.kill()
    send(stage, load, 600)
    assert len(stage.buffer)
    assert not stage.health.is_redis_up
    store.start()
    send(stage, load, 100)
    stage.step_until(lambda: sum(of_stratum(stage, "rows_received").values()) == load.handed_over.total())
    stage.step_until(lambda: not len(stage.buffer))

    assert_balanced(stage)
    assert of_stratum(stage, "rows_received") == load.handed_over
    counts = over_strata(counted(stage))
    for counter in ("thinned", "dropped_buffer_full", "dropped_invalid_not_finite", "screened_anomaly"):
        assert counts[counter], counter
    assert counts["dropped_invalid_bad_checksum"]
    assert counted(stage)[UNKNOWN, "dropped_invalid_bad_field"]
    found = distinct([*first_life, *shipped(store.client)])
    assert Counter(record.header.request.stratum for record in found) == of_stratum(stage, "rows_shipped")
    # What is read from the stream is the same, of every hop's last word.
    stage.step_until(lambda: totals(store.client, "sidecar") == counted(stage))


def of_stratum(stage: Stage, counter: str) -> Counter[str]:
    return Counter(
        {stratum: value for (stratum, name), value in counted(stage).items() if name == counter and value}
    )


def distinct(records: list[Record]) -> list[Record]:
    """A batch that broke off is shipped again: readers know a record by its identity."""
    return list({sample_id(record.header): record for record in records}.values())


def test_what_was_thinned_can_be_estimated_from_what_was_shipped(
    start: Any, client: Any, tmp_path: Path
) -> None:
    (tmp_path / "policy.json").write_text('{"screen": {"baseline_rate": 0.2}}')
    stage: Stage = start(
        buffer_bytes=64 * MIB, detector=Detector(reference()), policy_file=tmp_path / "policy.json"
    )
    sent = 4000
    for number in range(sent // 8):
        ids = [f"r{number}-{request}" for request in range(4)]
        stage.send(wire.BLOCK, *block_frames(rows=8, seed=number, request_id=ids, probability=[1.0] * 8))
        if number % 50 == 0:
            stage.sidecar.step(0.0)
    stage.step_until(lambda: over_strata(totals(client, "sidecar")).get("rows_received") == sent)
    stage.step_until(lambda: client.xlen(STREAM) > 0 and not len(stage.buffer))

    headers = [record.header for record in shipped(client)]
    by_all = sum(1 / header.probability for header in headers)
    by_baseline = sum(1 / one.baseline_probability for one in headers if one.baseline_probability)
    # Requests of two rows at a rate of 0.2: standard deviation of the sum over 2,000 draws.
    spread = 2 * np.sqrt(sent / 2 * (1 - 0.2) / 0.2)
    assert abs(by_baseline - sent) < 4 * spread
    assert abs(by_all - sent) < 4 * spread
