"""What tombstones may account for in a bundle, and what somebody cannot hide behind one."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.evidence.bundle.archive import Archive, ArchiveError, parsed
from service.evidence.bundle.check import check
from service.evidence.bundle.finding import Report, What
from service.evidence.bundle.layout import FILES, Line
from service.evidence.entry import commit, moment
from service.evidence.payloads import Kind
from tests.support import bundles
from tests.support.bundles import PlantedLog, Wish

LATE = bundles.END + timedelta(hours=1)


def entries_of(log: PlantedLog, kind: str) -> list[int]:
    """Return the entries of a kind in the period that are the last of their rows."""
    found = [line.entry for of, at, line in log.rows if of == kind and bundles.START <= at < bundles.END]
    return [one for one in found if one is not None]


def bury(log: PlantedLog, leaves: Sequence[Sequence[int]], count: int | None = None) -> int:
    """Add a tombstone of after the period; return its entry."""
    total = sum(end - first for first, end in leaves) if count is None else count
    payload = {"id": "stone", "at": moment(LATE), "leaves": [list(one) for one in leaves], "count": total}
    entry = log.add(Kind.TOMBSTONE, LATE, payload).entry
    assert entry is not None
    return entry


def verified(log: PlantedLog, file: Path, withheld: Mapping[int, int], **more: Any) -> Report:
    """Pack a bundle without some rows, each erased by a tombstone's entry, and verify it."""
    lines = [{"entry": entry, "reason": "erased", "by": by} for entry, by in withheld.items()]
    wish = replace(Wish(withheld=lines, without=frozenset(withheld)), **more)
    return check(bundles.pack(log, file, wish), log.signer.verifier)


def whats(report: Report) -> list[What]:
    return [one.what for one in report.findings]


def test_a_tombstone_of_after_the_period_accounts_for_what_was_erased(tmp_path: Path) -> None:
    log = bundles.plant()
    gone = entries_of(log, Kind.EXPLANATION)[0]
    stone = bury(log, [(gone, gone + 1)])

    report = verified(log, tmp_path / "erased.zip", {gone: stone})

    assert report.findings == []
    assert (report.withheld, report.tombstones) == ({"erased": 1}, 1)


@pytest.mark.parametrize("kind", [Kind.DECODER, Kind.ACCESS])
def test_a_tombstone_hides_no_decoder_and_nobody_who_read(kind: Kind, tmp_path: Path) -> None:
    log = bundles.plant()
    gone = entries_of(log, kind)[-1]
    stone = bury(log, [(gone, gone + 1)])

    assert whats(verified(log, tmp_path / "hidden.zip", {gone: stone})) == [What.ROW_MISSING]


def test_what_the_access_log_said_before_ids_were_erased_is_buried_and_its_row_stands(
    tmp_path: Path,
) -> None:
    log = bundles.plant()
    before = next(one for one in log.rows if one[2].entry == entries_of(log, Kind.ACCESS)[0])
    log.rows.remove(before)
    _, at, line = before
    assert line.salt is not None
    assert line.entry is not None
    trail = [commit(line.salt, line.payload).hex()]
    shrunk = log.add(Kind.ACCESS, LATE, {**line.payload, "figure": 0, "trail": trail})
    stone = bury(log, [(line.entry, line.entry + 1)])
    log.rows.append((Kind.ACCESS, at, shrunk))
    log.rows.remove((Kind.ACCESS, LATE, shrunk))

    assert verified(log, tmp_path / "shrunk.zip", {line.entry: stone}).findings == []
    # Its row speaks for what is left alone, not for what was there before.
    log.rows[-1] = (Kind.ACCESS, at, replace(shrunk, earlier=[line.entry]))
    assert What.ROW_CHANGED in whats(verified(log, tmp_path / "alone.zip", {}))


def test_what_a_tombstone_may_not_say_is_named(tmp_path: Path) -> None:
    def says(leaves: Sequence[Sequence[int]], *, more: int = 0, gone: Sequence[int] = ()) -> set[What]:
        log = bundles.plant()
        place = entries_of(log, Kind.EXPLANATION)
        named = [[place[0] + one for one in each] for each in leaves]
        stone = bury(log, named, sum(end - first for first, end in named) + more)
        file = tmp_path / "said.zip"
        file.unlink(missing_ok=True)
        return set(whats(verified(log, file, {place[at]: stone for at in gone})))

    assert says([(0, 1)], gone=[0]) == set()
    assert says([(0, 1)], gone=[0], more=1) == {What.TOMBSTONE_MISCOUNTED}
    assert says([(0, 1)]) == {What.TOMBSTONE_OVER_ROW}
    assert says([(0, 10**6)], gone=[0]) == {What.TOMBSTONE_OVER_ROW, What.TOMBSTONE_AHEAD}
    assert says([(0, 1), (0, 1)], gone=[0]) == {What.ROW_UNREADABLE, What.ROW_MISSING}
    assert says([(1, 0)], gone=[0]) == {What.ROW_UNREADABLE, What.ROW_MISSING}


@pytest.mark.parametrize("kind", [Kind.EXPLANATION, Kind.FLAG, Kind.INCIDENT_EVENT, Kind.ACCESS])
def test_an_entry_that_is_both_buried_and_present_is_named(kind: Kind, tmp_path: Path) -> None:
    log = bundles.plant()
    there = entries_of(log, kind)[0]
    stone = bury(log, [(there, there + 1)])

    [found] = verified(log, tmp_path / "there.zip", {}).findings

    assert found.what is What.TOMBSTONE_OVER_ROW
    assert f"the tombstone of entry {stone} covers entry {there}," in found.why


def test_so_is_one_whose_row_has_a_proof_of_its_own(tmp_path: Path) -> None:
    log = bundles.plant()
    # Handed out though it is of before the period, as rows of the period stand on it.
    older = next(line.entry for kind, _, line in log.rows if kind == Kind.DECODER)
    assert older is not None
    bury(log, [(older, older + 1)])

    [found] = verified(log, tmp_path / "older.zip", {}).findings

    assert found.what is What.TOMBSTONE_OVER_ROW
    assert f"covers entry {older}," in found.why


def test_a_row_without_an_entry_is_of_before_the_log_or_a_finding(tmp_path: Path) -> None:
    log = bundles.plant()
    for number, at in enumerate((timedelta(0), timedelta(days=2))):
        payload = {"id": f"unlogged {number}", "created_at": moment(bundles.START + at)}
        line = Line(payload=payload, entry=None, salt=None)
        log.rows.append((Kind.FLAG, bundles.START, line))

    report = check(bundles.pack(log, tmp_path / "unlogged.zip"), log.signer.verifier)

    assert [(one.what, one.place.row) for one in report.findings] == [(What.ROW_NOT_IN_LOG, "unlogged 1")]
    assert report.rows_not_in_log == 2


def test_nothing_stands_between_members_and_no_name_has_a_line_feed(tmp_path: Path) -> None:
    log = bundles.plant()
    whole = bundles.pack(log, tmp_path / "whole.zip")
    Archive(whole).close()
    content = whole.read_bytes()
    with zipfile.ZipFile(whole) as opened:
        start = opened.start_dir
    padded = tmp_path / "padded.zip"
    # The end says how far before it the directory begins.
    end = bytearray(content[start:])
    at = end.rindex(b"PK\x05\x06") + 16
    end[at : at + 4] = (start + 7).to_bytes(4, "little")
    padded.write_bytes(content[:start] + b"another" + bytes(end))
    with pytest.raises(ArchiveError, match="between"):
        Archive(padded)
    named = bundles.rewrite(tmp_path / "named.zip", {"manifest.json\n": b"{}"})
    with pytest.raises(ArchiveError, match="name"):
        Archive(named)


def test_json_that_is_nested_beyond_measure_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested"):
        parsed(b"[" * 200_000 + b"]" * 200_000)


def test_tombstones_have_a_member() -> None:
    assert FILES[Kind.TOMBSTONE] == "tombstones.ndjson"
    assert set(Kind) == set(FILES)
