"""Rows as Parquet: typed, the same bytes each time, verified offline, and each change found and named."""

import hmac
import io
import json
import random
import uuid
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as foreign

from service.evidence.bundle import parquet
from service.evidence.bundle.archive import written
from service.evidence.bundle.check import check
from service.evidence.bundle.finding import Report, What
from service.evidence.bundle.layout import LEAVES, MANIFEST, PROOF, RowFormat, member_of
from service.evidence.entry import plain
from tests.support import bundles
from tests.support.bundles import Packed, Wish

CHANGES = 45
FLIPS = 20
KINDS = ("explanation", "flag", "incident_event", "access", "decoder")
Members = dict[str, bytes]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    wish = Wish(form=RowFormat.PARQUET)
    return bundles.packed_of(tmp_path_factory.mktemp("parquet") / "whole.zip", wish)


def read(content: bytes) -> pa.Table:
    """Read by Arrow alone."""
    return foreign.read_table(io.BytesIO(content))


def rewritten(rows: Rows, schema: pa.Schema) -> bytes:
    made = io.BytesIO()
    foreign.write_table(pa.Table.from_pylist(rows, schema=schema), made)
    return made.getvalue()


def verified(packed: Packed, file: Path) -> Report:
    return check(file, packed.log.signer.verifier)


def edit_column(rows: Rows, rng: random.Random) -> set[What]:
    """Let a typed column say something else; what the entry commits to stays."""
    row = rows[rng.randrange(len(rows))]
    name = rng.choice(sorted(set(row) & {"id", "figure", "text", "positions"}))
    row[name] = f"{row[name]}x" if isinstance(row[name], str) else row[name] + 1
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def empty_column(rows: Rows, rng: random.Random) -> set[What]:
    row = rows[rng.randrange(len(rows))]
    row["id"] = None
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def edit_row(rows: Rows, rng: random.Random) -> set[What]:
    """Change a value in the column and in the payload alike."""
    row = rows[rng.randrange(len(rows))]
    row["id"] = str(uuid.UUID(bytes=rng.randbytes(16)))
    row["payload"] = written(json.loads(row["payload"]) | {"id": row["id"]}).decode()
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def rewrite_payload(rows: Rows, rng: random.Random) -> set[What]:
    """Write the same otherwise."""
    row = rows[rng.randrange(len(rows))]
    row["payload"] = json.dumps(json.loads(row["payload"]))
    return {What.ROW_UNREADABLE, What.FILE_CHANGED}


def edit_salt(rows: Rows, rng: random.Random) -> set[What]:
    rows[rng.randrange(len(rows))]["salt"] = rng.choice([None, rng.randbytes(16).hex()])
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def delete_row(rows: Rows, _rng: random.Random) -> set[What]:
    rows.pop()
    return {What.ENTRY_WITHOUT_ROW, What.FILE_CHANGED}


def repeat_row(rows: Rows, rng: random.Random) -> set[What]:
    rows.append(rows[rng.randrange(len(rows))])
    return {What.ROW_REPEATED, What.FILE_CHANGED}


def swap_rows(rows: Rows, rng: random.Random) -> set[What]:
    one, other = rng.sample(range(len(rows)), 2)
    rows[one], rows[other] = rows[other], rows[one]
    return {What.FILE_CHANGED}


def swap_entries(rows: Rows, rng: random.Random) -> set[What]:
    one, other = rng.sample(rows, 2)
    one["entry"], other["entry"] = other["entry"], one["entry"]
    return {What.ROW_CHANGED, What.FILE_CHANGED}


Change = Callable[[Rows, random.Random], set[What]]
OF_ROWS: tuple[Change, ...] = (
    edit_column, empty_column, edit_row, rewrite_payload, edit_salt, delete_row, repeat_row, swap_rows,
    swap_entries,
)  # fmt: skip


def test_nothing_is_found_in_a_bundle_of_parquet_that_nobody_changed(packed: Packed) -> None:
    report = verified(packed, packed.file)

    assert report.findings == []
    assert (report.rows_opened, report.entries_in_period) == (34, 36)


def test_each_change_of_rows_is_found_and_named_also_where_the_manifest_agrees(
    packed: Packed, tmp_path: Path
) -> None:
    rng = random.Random(17)  # noqa: S311  # the same changes each time

    for number in range(CHANGES):
        change, name = OF_ROWS[number % len(OF_ROWS)], member_of(rng.choice(KINDS), RowFormat.PARQUET)
        members, table = dict(packed.members), read(packed.members[name])
        rows = table.to_pylist()
        expected = change(rows, rng)
        members[name] = rewritten(rows, table.schema)
        if rng.randrange(2):  # and the manifest is made to agree
            manifest = json.loads(members[MANIFEST])
            manifest["files"][name]["sha256"] = sha256(members[name]).hexdigest()
            members[MANIFEST] = written(manifest)
            expected = expected - {What.FILE_CHANGED} | {What.MANIFEST_CHANGED}
        report = verified(packed, bundles.rewrite(tmp_path / "changed.zip", members))
        found = {one.what for one in report.findings}
        assert expected <= found, (change.__name__, number, expected, report.findings[:5])


def test_a_changed_column_is_named_by_file_row_and_id(packed: Packed, tmp_path: Path) -> None:
    members = dict(packed.members)
    table = read(members["explanations.parquet"])
    rows = table.to_pylist()
    rows[4]["text"] = "nothing to see"
    members["explanations.parquet"] = rewritten(rows, table.schema)

    first = verified(packed, bundles.rewrite(tmp_path / "changed.zip", members)).findings[0]

    assert (first.what, str(first.place)) == (
        What.ROW_CHANGED,
        f"explanations.parquet number 5, row {rows[4]['id']}",
    )
    assert first.why.startswith("its column text says 'nothing to see' and its payload 'reading ")


def test_a_damaged_file_is_named_and_a_column_that_is_missing_too(packed: Packed, tmp_path: Path) -> None:
    rng, name = random.Random(5), "explanations.parquet"  # noqa: S311  # the same each time
    whole = packed.members[name]
    flips = [(at, 1 << rng.randrange(8)) for at in rng.sample(range(len(whole)), FLIPS)]
    damaged = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at, bit in flips]

    for content in [b"", whole[:-9], *damaged]:
        changed = bundles.rewrite(tmp_path / "changed.zip", {**packed.members, name: content})
        assert What.FILE_CHANGED in {one.what for one in verified(packed, changed).findings}

    table = read(whole).drop_columns(["salt"])
    without = {**packed.members, name: rewritten(table.to_pylist(), table.schema)}
    report = verified(packed, bundles.rewrite(tmp_path / "changed.zip", without))
    assert (What.MEMBER_UNREADABLE, name) in {(one.what, one.place.member) for one in report.findings}
    table = read(whole).drop_columns(["text"])
    without = {**packed.members, name: rewritten(table.to_pylist(), table.schema)}
    report = verified(packed, bundles.rewrite(tmp_path / "changed.zip", without))
    assert report.findings[0].why == "it has 'text', and no column is for that"


def test_without_text_no_column_has_any(tmp_path: Path) -> None:
    log = bundles.plant()
    file = bundles.pack(log, tmp_path / "closed.zip", Wish(with_text=False, form=RowFormat.PARQUET))

    report = check(file, log.signer.verifier)

    assert report.findings == []
    assert (report.rows_opened, report.rows_without_text) == (22, 12)
    rows = read(bundles.members_of(file)["explanations.parquet"]).to_pylist()
    assert {(row["text"], row["salt"], row["sample"]["token_text"]) for row in rows} == {(None, None, None)}


def test_who_has_arrow_alone_opens_each_entry_by_salt_and_payload(packed: Packed) -> None:
    first = json.loads(packed.members[PROOF])["first"]
    leaves = [json.loads(one) for one in packed.members[LEAVES].splitlines()]

    opened = 0
    for row in read(packed.members["explanations.parquet"]).to_pylist():
        made = hmac.new(bytes.fromhex(row["salt"]), row["payload"].encode(), "sha256").hexdigest()
        opened += made == leaves[row["entry"] - first]["commitment"]

    assert opened == 12


def test_values_are_typed_missing_ones_null_and_groups_bounded() -> None:
    schema = parquet.schema_of(
        [
            pa.field("n", pa.int64()),
            pa.field("x", pa.float64()),
            pa.field("at", parquet.TIME),
            pa.field("many", pa.list_(pa.list_(pa.int64()))),
            pa.field("other", pa.string()),
        ]
    )
    payloads: Rows = [
        {
            "n": plain(2**60 + 1),
            "x": "inf",
            "at": "2026-11-01T00:00:00.000001Z",
            "other": {"b": 1, "a": [True]},
        },
        {"n": plain(2**60), "x": -0.0, "many": [[1, 2], [5, 9]], "other": "text"},
        {"x": "nan", "at": None},
        *({"n": number} for number in range(9000)),
    ]
    lines = [written({"entry": None, "salt": None, "payload": one}) for one in payloads]

    made = [_written(schema, lines) for _ in range(2)]

    assert made[0] == made[1]
    file = foreign.ParquetFile(io.BytesIO(made[0]))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [8192, 811]
    table = file.read()
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert table["n"].to_pylist()[:3] == [2**60 + 1, 2**60, None]
    assert str(table["x"].to_pylist()[:3]) == "[inf, 0.0, nan]"
    assert table["at"].cast(pa.int64()).to_pylist()[:3] == [1793491200000001, None, None]
    assert table["many"].to_pylist()[:2] == [None, [[1, 2], [5, 9]]]
    assert table["other"].to_pylist()[:2] == ['{"a":[true],"b":1}', "text"]
    assert not [one for one in parquet.Rows(io.BytesIO(made[0])) if isinstance(one, ValueError)]


def _written(schema: pa.Schema, lines: list[bytes]) -> bytes:
    made = io.BytesIO()
    assert parquet.write(made, schema, iter(lines)) == len(lines)
    return made.getvalue()


def test_what_arrow_compresses_is_not_compressed_again(packed: Packed) -> None:
    with zipfile.ZipFile(packed.file) as opened:
        stored = {one.filename for one in opened.infolist() if one.compress_type == zipfile.ZIP_STORED}
    assert stored == {one for one in packed.members if one.endswith(".parquet")}


def test_a_payload_that_no_column_can_say_is_named_and_the_rows_beside_it_are_read() -> None:
    schema = parquet.schema_of([pa.field("n", pa.int64()), pa.field("at", parquet.TIME)])
    lines = [written({"entry": 1, "salt": None, "payload": {"n": number}}) for number in range(4)]
    table = read(_written(schema, lines))
    rows = table.to_pylist()
    said = ["[]", '{"at":"yesterday","n":1}', '{"n":[5]}', rows[3]["payload"]]

    changed = rewritten([row | {"payload": one} for row, one in zip(rows, said, strict=True)], table.schema)

    *wrong, right = parquet.Rows(io.BytesIO(changed))
    assert not isinstance(right, ValueError)
    assert [str(one).split(":")[0] for one in wrong] == [
        "its payload is no object in canonical JSON (RFC 8785)",
        "its at is no timestamp[us, tz=UTC]",
        "its n is no int64",
    ]
