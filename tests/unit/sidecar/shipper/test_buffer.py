from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.local.ledger import Cell
from subtext_sidecar.shipper.buffer import Buffer, Entry
from subtext_sidecar.shipper.queue import bound_entries

UNIFORM = Stratum.UNIFORM


@given(
    sizes=st.lists(st.integers(1, 50), max_size=60), limit=st.integers(50, 300), taken=st.integers(0, 60)
)
def test_the_buffer_never_holds_more_bytes_than_its_bound_and_keeps_order(
    sizes: list[int], limit: int, taken: int
) -> None:
    buffer = Buffer(limit)
    accepted = [
        entry
        for number, size in enumerate(sizes)
        if buffer.put(entry := Entry("s", b"", bytes(size), Cell("m", UNIFORM, number), size))
    ]

    assert buffer.size_bytes == sum(entry.size for entry in accepted) <= limit
    assert buffer.oldest(len(buffer)) == accepted
    buffer.remove(min(taken, len(buffer)))
    assert buffer.oldest(1000) == accepted[taken:]
    assert buffer.size_bytes == sum(entry.size for entry in accepted[taken:])


def test_the_stream_bound_is_in_bytes() -> None:
    small = [Entry("s", b"h" * 72, b"v" * 800, Cell("m", UNIFORM, 0), 872)]

    assert bound_entries(1_000_000, small) == 1000
    assert bound_entries(10, small) == 1
