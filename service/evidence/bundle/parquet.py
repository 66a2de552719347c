"""Rows as a Parquet file: what opens an entry as it is committed to, and beside it each value in a column.

`payload` is the text that entry and salt commit to; every other column says a value of it once more, by the
type that it has, and is held against it when the file is read. Whoever imports this module waits a second
for Arrow: it is imported where a file is written or read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from io import IOBase
from typing import Any, BinaryIO, Final

import pyarrow as pa
from pyarrow import parquet

from service.evidence.bundle.layout import Line, ShapeError, read_line, read_moment
from service.evidence.entry import canonical

TIME: Final = pa.timestamp("us", tz="UTC")
_TIES: Final = (
    pa.field("entry", pa.int64()),
    pa.field("salt", pa.string()),
    pa.field("payload", pa.string(), nullable=False),
    pa.field("earlier", pa.list_(pa.int64())),
)
"""The columns that tie a row to the log, as `layout.line_of` names them."""
_MOST_ROWS: Final = 8192
_MOST_BYTES: Final = 8 << 20
"""Of payloads in a row group; a single row may be larger."""
_LARGEST_GROUP: Final = 256 << 20
_LONGEST_FOOTER: Final = 1 << 20
_NO_VALUE: Final = (TypeError, ValueError, ArithmeticError, AttributeError, pa.ArrowException)


class ParquetError(ValueError):
    """The file cannot be read as Parquet, or not as rows of a bundle; the message says why."""


def schema_of(columns: Iterable[pa.Field]) -> pa.Schema:
    """Return the schema of a file whose payloads have these values."""
    return pa.schema([*_TIES, *columns])


def told(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return names and types of the columns, as the schema document has them."""
    return [{"name": one.name, "type": str(one.type), "nullable": one.nullable} for one in schema]


def write(file: IOBase, schema: pa.Schema, lines: Iterable[bytes]) -> int:
    """Write rows as they stand in NDJSON, one group in memory at a time; return how many.

    The same rows give the same bytes by the same version of Arrow.
    """
    sink, rows = pa.PythonFile(file, mode="w"), 0
    with parquet.ParquetWriter(
        sink, schema, compression="zstd", compression_level=3, store_schema=False, write_page_checksum=True
    ) as writer:
        for group in _groups(lines):
            batch = _batch([json.loads(line) for line in group], schema)
            writer.write_batch(batch, row_group_size=len(group))
            rows += len(group)
    return rows


def _groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line)
        if len(group) >= _MOST_ROWS or size >= _MOST_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _batch(lines: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    ties = {one.name for one in _TIES}
    columns = [
        pa.array([(_tie if one.name in ties else _valued)(line, one) for line in lines], one.type)
        for one in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _tie(line: Mapping[str, Any], column: pa.Field) -> Any:
    return canonical(line["payload"]).decode() if column.name == "payload" else line.get(column.name)


def _valued(line: Mapping[str, Any], column: pa.Field) -> Any:
    return value_of(line["payload"].get(column.name), column.type)


def value_of(told: Any, kind: pa.DataType) -> Any:  # noqa: PLR0911  # one a type
    """Return a value of a payload as a column of this type has it; ValueError when it is none."""
    if told is None:
        return None
    if pa.types.is_struct(kind):
        _check_names(told, kind)
        return {one.name: value_of(told.get(one.name), one.type) for one in kind}
    if pa.types.is_list(kind):
        return [value_of(one, kind.value_type) for one in told]
    if kind == TIME:
        return read_moment(told)
    if pa.types.is_int64(kind):
        # What JSON's numbers do not hold is a float or text there.
        return int(Decimal(repr(told))) if isinstance(told, float) else int(told)
    if pa.types.is_float64(kind):
        return float(told) + 0.0  # no negative zero: JSON has none
    if pa.types.is_boolean(kind):
        return told
    return told if isinstance(told, str) else canonical(told).decode()


def _check_names(told: Mapping[str, Any], kind: Iterable[pa.Field]) -> None:
    unknown = sorted(set(told) - {one.name for one in kind})
    if unknown:
        raise ShapeError(f"it has {unknown[0]!r}, and no column is for that")


class ColumnError(ValueError):
    """A column that says something else than its row's payload; ``key`` is the row's."""

    def __init__(self, why: str, key: str) -> None:
        super().__init__(why)
        self.key = key


class Rows:
    """The rows of a file, read a group at a time."""

    def __init__(self, file: BinaryIO) -> None:
        """Open it; ParquetError when it is no such file."""
        try:
            self._file = parquet.ParquetFile(
                file,
                pre_buffer=False,
                page_checksum_verification=True,
                thrift_string_size_limit=_LONGEST_FOOTER,
                thrift_container_size_limit=_LONGEST_FOOTER,
            )
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ParquetError(f"it is no whole Parquet file: {error}") from error
        names = self._schema.names
        if len(set(names)) < len(names) or any(
            one.name not in names or self._schema.field(one.name).type != _plain(one.type) for one in _TIES
        ):
            raise ParquetError(f"it has not the columns {', '.join(one.name for one in _TIES)}, each once")

    def payloads(self) -> Iterator[bytes]:
        """Yield the payloads as they were written; ParquetError when one cannot be read."""
        for group in self._groups(["payload"]):
            yield from ((one.as_py() or "").encode() for one in group.column(0))

    def __iter__(self) -> Iterator[Line | ValueError]:
        """Yield each row, or why it is none; ParquetError when the file cannot be read any further."""
        for group in self._groups(None):
            lines = [_line(one) for one in group.select([one.name for one in _TIES]).to_pylist()]
            wrong = self._differing(group, lines)
            for number, line in enumerate(lines):
                row = line if isinstance(line, ValueError) else _read(line)
                if isinstance(row, Line) and number in wrong:
                    yield ColumnError(str(wrong[number]), row.key)
                else:
                    yield row

    def _groups(self, columns: list[str] | None) -> Iterator[pa.Table]:
        try:
            for number in range(self._file.metadata.num_row_groups):
                about = self._file.metadata.row_group(number)
                if about.num_rows > _MOST_ROWS or about.total_byte_size > _LARGEST_GROUP:
                    raise ParquetError(f"row group {number + 1} is larger than any that is written")
                yield self._file.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ParquetError(f"it is damaged: {error}") from error

    def _differing(
        self, group: pa.Table, lines: Sequence[Mapping[str, Any] | ValueError]
    ) -> dict[int, ValueError]:
        """Return by row what a column says that its payload does not."""
        found: dict[int, ValueError] = {}
        ties = {one.name for one in _TIES}
        columns = [one for one in self._schema if one.name not in ties]
        for number, line in enumerate(lines):
            if not isinstance(line, ValueError):
                try:
                    _check_names(line["payload"], columns)
                except ValueError as error:
                    found[number] = error
        for column in columns:
            values, wanted = group.column(column.name), _wanted(lines, column, found)
            if values.combine_chunks().equals(wanted):
                continue
            both = zip(values.to_pylist(), wanted.to_pylist(), strict=True)
            for number, (has, should) in enumerate(both):
                if repr(has) != repr(should):  # of which NaN is the same as NaN
                    why = f"its column {column.name} says {_short(has)} and its payload {_short(should)}"
                    found.setdefault(number, ShapeError(why))
        return found


def _wanted(
    lines: Sequence[Mapping[str, Any] | ValueError], column: pa.Field, found: dict[int, ValueError]
) -> pa.Array:
    try:
        return pa.array(
            [None if isinstance(line, ValueError) else _valued(line, column) for line in lines], column.type
        )
    except _NO_VALUE:
        return pa.array(
            [_tried(line, column, number, found) for number, line in enumerate(lines)], column.type
        )


def _tried(
    line: Mapping[str, Any] | ValueError, column: pa.Field, number: int, found: dict[int, ValueError]
) -> Any:
    """Return the value that a column should have; None, and why in ``found``, where there is none."""
    if isinstance(line, ValueError):
        return None
    try:
        return pa.scalar(_valued(line, column), column.type).as_py()
    except _NO_VALUE as error:
        found.setdefault(number, ShapeError(f"its {column.name} is no {column.type}: {error}"))
    return None


def _short(value: Any) -> str:
    told, most = repr(value), 80
    return told if len(told) <= most else f"{told[:most]}..."


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type as a file has it: Parquet calls what is in a list its element."""
    return pa.list_(pa.field("element", kind.value_type)) if pa.types.is_list(kind) else kind


def _line(told: Mapping[str, Any]) -> dict[str, Any] | ValueError:
    made = {name: value for name, value in told.items() if name != "earlier" or value is not None}
    try:
        made["payload"] = json.loads(told["payload"])
        if canonical(made["payload"]).decode() != told["payload"] or not isinstance(made["payload"], dict):
            raise ShapeError("its payload is no object in canonical JSON (RFC 8785)")
    except (TypeError, ValueError, RecursionError) as error:
        return (
            error if isinstance(error, ShapeError) else ShapeError(f"its payload cannot be read: {error}")
        )
    return made


def _read(line: Mapping[str, Any]) -> Line | ValueError:
    try:
        return read_line(line)
    except ValueError as error:
        return error
