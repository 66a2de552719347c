"""How much of a dead-letter stream is kept: bounded by entries and by bytes, and never nothing."""

from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract import dead_letters


@given(st.integers(1, 5000), st.integers(1, 1 << 28))
def test_what_is_kept_is_within_both_bounds_or_is_one_letter(entries: int, size_bytes: int) -> None:
    kept = dead_letters.entries_kept(entries, size_bytes)

    assert 1 <= kept <= min(entries, dead_letters.MAX_ENTRIES)
    assert kept == 1 or kept * size_bytes <= dead_letters.MAX_BYTES * entries


@given(st.integers(0, 5000), st.integers(0, 1 << 28))
def test_nothing_is_trimmed_unless_the_stream_is_full(entries: int, size_bytes: int) -> None:
    if dead_letters.fill_ratio(entries, size_bytes) <= 1:
        assert entries == 0 or dead_letters.entries_kept(entries, size_bytes) == entries


def test_each_stream_writer_and_reason_has_a_stream_of_its_own() -> None:
    names = [name for stream in ("a", "b") for *_, name in dead_letters.streams_of(stream)]

    assert len(set(names)) == 2 * len(dead_letters.WRITERS) * len(dead_letters.REASONS)
