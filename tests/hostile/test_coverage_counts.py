"""A count that PostgreSQL refuses is set aside; it ends no worker and takes no other count with it."""

import random
import threading
from collections.abc import Callable

from sqlalchemy import func, select

from service.store.tables import CoverageMinute
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Hop, Stratum
from tests.support.letters import letters_of
from tests.support.waiting import wait_until
from tests.support.worker import MODEL, Bench
from workers.consumer import serving
from workers.consumer.ledger import MAX_TEXT

GOOD = 5


def add(bench: Bench, source: str, model: str = MODEL, counter: str = "requests_seen") -> None:
    count = record.CoverageCount(
        v=1,
        source=source,
        hop=Hop.PLUGIN,
        model=model,
        stratum=Stratum.UNIFORM,
        minute=29_000_000,
        counts={counter: 1},
    )
    bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: record.encode_coverage(count)})


def wide(seed: int) -> str:
    """A text as long as may be, of characters of four bytes, which no compression makes short."""
    dice = random.Random(seed)  # noqa: S311  # no secret
    return "".join(chr(dice.randrange(0x20000, 0x2A000)) for _ in range(MAX_TEXT))


def test_a_count_too_wide_for_its_index_is_dead_lettered_and_the_others_are_kept(bench: Bench) -> None:
    for number in range(GOOD):
        add(bench, f"source-{number}")
    add(bench, wide(1), wide(2), wide(3))

    bench.parts.intake.step(block_ms=50)
    bench.parts.intake.step(block_ms=50)

    with bench.sessions() as session:
        assert session.execute(select(func.sum(CoverageMinute.count))).scalar_one() == GOOD
    [letter] = letters_of(bench.client, streams.COVERAGE_STREAM)
    assert letter[streams.FIELD_REASON] == b"store_refused"
    assert b"index row size" in letter[streams.FIELD_ERROR]
    assert bench.client.xlen(streams.COVERAGE_STREAM) == 0
    labels = {"stream": streams.COVERAGE_STREAM, "reason": "store_refused"}
    assert bench.metric("subtext_stream_dead_letters_total", **labels) == 1


def test_workers_that_meet_a_refused_count_work_on_and_end_well(make_bench: Callable[..., Bench]) -> None:
    benches = [make_bench(), make_bench()]
    add(benches[0], wide(1), wide(2), wide(3))
    add(benches[0], "source")
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda bench=bench: statuses.append(serving.serve(bench.parts, bench.loop)))
        for bench in benches
    ]
    for thread in threads:
        thread.start()

    wait_until("both counts are settled", lambda: not benches[0].client.xlen(streams.COVERAGE_STREAM), 30)
    for bench in benches:
        bench.stop.set()
    for thread in threads:
        thread.join(30)

    assert statuses == [0, 0]
    assert len(letters_of(benches[0].client, streams.COVERAGE_STREAM)) == 1
