"""The JSON Schemas (2020-12) of a bundle's rows, from the tables' columns."""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import ARRAY, JSON, Table
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE
from sqlalchemy.types import TypeEngine

from service.evidence.bundle.layout import TEXT_OF_EXPLANATION, TEXT_OF_SAMPLE
from service.evidence.payloads import COLUMNS, MATCH, SAMPLE, SUBJECT_VERSION, VERSION, Columns, Kind
from service.store.schema import METADATA

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_HEX: Final = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}


def schema_of(kind: Kind, *, with_text: bool) -> dict[str, Any]:
    """Return the schema of a member's lines."""
    payload = _object(COLUMNS[kind])
    versions = [VERSION, SUBJECT_VERSION] if kind is Kind.EXPLANATION else [VERSION]
    own = {"v": {"enum": versions}, "table": {"const": COLUMNS[kind].table}}
    payload["properties"] |= own
    payload["required"] += list(own)
    # Of rows that change: the commitments to what they were before.
    payload["properties"]["trail"] = {"type": "array", "items": _HEX}
    if kind is Kind.EXPLANATION:
        payload["properties"] |= {
            "sample": _object(SAMPLE),
            "matches": {"type": "array", "items": _object(MATCH)},
        }
        payload["required"] += ["sample", "matches"]
        if not with_text:
            _take_out(payload, TEXT_OF_EXPLANATION)
            _take_out(payload["properties"]["sample"], TEXT_OF_SAMPLE)
    line = {
        "entry": {"type": ["integer", "null"], "minimum": 0},
        "salt": {"anyOf": [_HEX, {"type": "null"}]},
        "payload": payload,
        "earlier": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    }
    return {
        "$schema": _DIALECT,
        "title": f"A row of {COLUMNS[kind].table}, and the entry of the log that it opens",
        "type": "object",
        "properties": line,
        "required": ["entry", "salt", "payload"],
        "additionalProperties": False,
    }


def table_of(kind: Kind, *, with_text: bool) -> Any:
    """Return the Arrow schema of a member of Parquet: a column for each value of its payloads."""
    import pyarrow as pa

    from service.evidence.bundle.parquet import schema_of as schema_of_columns

    left_out = TEXT_OF_EXPLANATION if kind is Kind.EXPLANATION and not with_text else ()
    columns = [pa.field("v", pa.int64()), pa.field("table", pa.string())]
    columns += [one for one in _fields(COLUMNS[kind]) if one.name not in left_out]
    columns.append(pa.field("trail", pa.list_(pa.string())))
    if kind is Kind.EXPLANATION:
        of_sample = [one for one in _fields(SAMPLE) if with_text or one.name not in TEXT_OF_SAMPLE]
        columns += [
            pa.field("sample", pa.struct(of_sample)),
            pa.field("matches", pa.list_(pa.struct(list(_fields(MATCH))))),
        ]
    return schema_of_columns(columns)


def document_of(kind: Kind, table: Any, *, with_text: bool) -> dict[str, Any]:
    """Return the schema document of a member of Parquet: its columns, and what their payload is."""
    from service.evidence.bundle.parquet import told

    line = schema_of(kind, with_text=with_text)
    return {
        "title": line["title"],
        "format": "parquet",
        "columns": told(table),
        "payload": {"$schema": line["$schema"], **line["properties"]["payload"]},
    }


def _fields(columns: Columns) -> Iterator[Any]:
    import pyarrow as pa

    table = METADATA.tables[columns.table]
    for name in (*columns.committed, *columns.where_set):
        yield pa.field(name, _arrow(table.columns[name].type))


def _arrow(kind: TypeEngine[Any]) -> Any:
    """Return the type of a column's values; what only JSON can say, ids and digests are text."""
    import pyarrow as pa

    if isinstance(kind, INT8MULTIRANGE):
        return pa.list_(pa.list_(pa.int64()))
    if isinstance(kind, ARRAY):
        return pa.list_(_arrow(kind.item_type))
    if isinstance(kind, JSON):
        return pa.string()
    known = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        uuid.UUID: pa.string(),
        dt.datetime: pa.timestamp("us", tz="UTC"),
        bytes: pa.string(),
    }
    return known[kind.python_type]


def _take_out(schema: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        del schema["properties"][name]
        schema["required"].remove(name)


def _object(columns: Columns) -> dict[str, Any]:
    table = METADATA.tables[columns.table]
    return {
        "type": "object",
        "properties": {name: _column(table, name) for name in (*columns.committed, *columns.where_set)},
        "required": list(columns.committed),
        "additionalProperties": False,
    }


def _column(table: Table, name: str) -> Mapping[str, Any]:
    column = table.columns[name]
    known = _type(column.type)
    return {"anyOf": [known, {"type": "null"}]} if column.nullable and known else known


def _type(kind: TypeEngine[Any]) -> Mapping[str, Any]:
    if isinstance(kind, INT8MULTIRANGE):  # places of entries: first, and behind the last
        place = {"type": "integer", "minimum": 0}
        pair = {"type": "array", "items": place, "minItems": 2, "maxItems": 2}
        return {"type": "array", "items": pair}
    if isinstance(kind, ARRAY):
        return {"type": "array", "items": _type(kind.item_type)}
    if isinstance(kind, JSON):
        return {}
    known: dict[type, Mapping[str, Any]] = {
        str: {"type": "string"},
        # What JSON's numbers do not hold is written as text.
        int: {"type": ["integer", "number", "string"]},
        float: {"type": ["number", "string"]},
        bool: {"type": "boolean"},
        uuid.UUID: {"type": "string", "format": "uuid"},
        dt.datetime: {"type": "string", "format": "date-time"},
        bytes: _HEX,
    }
    return known[kind.python_type]
