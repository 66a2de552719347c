"""An export as Parquet holds what one of lines holds, typed, and verifies, resumes and goes like it."""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from service.evidence.bundle.archive import written
from service.exports.erase import erase_exports
from tests.integration.service import seed
from tests.integration.service.exports import past
from tests.integration.service.exports.desk import Desk

KINDS = ["explanations", "flags", "incidents", "access_log", "retention", "configurations"]
LONGER_EACH_TIME = "access.parquet"


def tables(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist() if name.endswith(".parquet")}


def payloads(file: Path, stem: str) -> list[str]:
    """Return what a file of lines says, one payload after the other."""
    with zipfile.ZipFile(file) as opened:
        lines = opened.read(f"{stem}.ndjson").splitlines()
    return [written(json.loads(line)["payload"]).decode() for line in lines]


def columns_of(file: Path, stem: str) -> dict[str, str]:
    """Return the columns that the schema document names, with their types."""
    with zipfile.ZipFile(file) as opened:
        document = json.loads(opened.read(f"schemas/{stem}.json"))
    return {one["name"]: _without_names_in_lists(one["type"]) for one in document["columns"]}


def _without_names_in_lists(told: str) -> str:
    return told.replace("<element: ", "<").replace("<item: ", "<")


def test_it_holds_the_rows_of_the_lines_in_typed_columns_and_verifies_offline(desk: Desk) -> None:
    lines = desk.made(kinds=KINDS, with_text=True)
    export = desk.made(kinds=KINDS, with_text=True, format="parquet")
    again = desk.made(kinds=KINDS, with_text=True, format="parquet")
    file, report, made = desk.file(export), desk.check(export), tables(desk.file(export))

    assert report.findings == []
    assert (desk.told(export)["format"], desk.told(export)["rows"]) == ("parquet", report.rows_opened)
    for name, content in made.items():
        table = parquet.read_table(io.BytesIO(content))
        typed = {one.name: _without_names_in_lists(str(one.type)) for one in table.schema}
        assert typed == columns_of(file, Path(name).stem)
        if name != LONGER_EACH_TIME:
            assert table["payload"].to_pylist() == payloads(desk.file(lines), Path(name).stem)
            assert content == tables(desk.file(again))[name]

    read = parquet.read_table(io.BytesIO(made["explanations.parquet"]))
    assert read["text"].to_pylist() == [seed.SECRET_TEXT] * 3
    assert set(read["created_at"].cast(pa.int64()).to_pylist()) == {int(past.AT.timestamp() * 1_000_000)}
    assert read.schema.field("cosine").type == pa.float64()
    assert [one["token_text"] for one in read["sample"].to_pylist()] == [seed.SECRET_TOKEN] * 3


def test_without_text_it_has_none_and_its_download_resumes_until_something_in_it_is_erased(
    desk: Desk,
) -> None:
    export = desk.made(format="parquet")
    path, whole = f"/v1/exports/{export}/download", desk.file(export).read_bytes()

    assert desk.check(export).findings == []
    read = parquet.read_table(io.BytesIO(tables(desk.file(export))["explanations.parquet"]))
    assert not {"text", "claims"} & set(read.column_names)
    assert seed.SECRET_TEXT not in str(read.to_pylist())
    rest = desk.client.get(path, headers=desk.admin | {"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, whole[100:])

    with desk.sessions.begin() as session:
        erased = erase_exports(session, desk.maker.folder, past.TENANT, [desk.stored.explanations[0]])
    assert (erased, desk.file(export).exists()) == ([export], False)
