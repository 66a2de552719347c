"""A count that PostgreSQL refuses is set aside; it ends no worker and takes no other count with it."""

import random
from typing import Any

from sqlalchemy import func, select

from service.store.tables import CoverageMinute
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Hop, Stratum
from tests.support.worker import MODEL, Bench
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
    letters: Any = bench.client.xrange(streams.COVERAGE_DEAD_LETTER_STREAM)
    [(_, letter)] = letters
    assert letter[streams.FIELD_REASON] == b"store_refused"
    assert b"index row size" in letter[streams.FIELD_ERROR]
    assert bench.client.xlen(streams.COVERAGE_STREAM) == 0
    labels = {"stream": streams.COVERAGE_STREAM, "reason": "store_refused"}
    assert bench.metric("subtext_stream_dead_letters_total", **labels) == 1
