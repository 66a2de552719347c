"""A log in memory and the bundle of one of its periods, written as an export writes it."""

import random
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.evidence import merkle, note
from service.evidence.bundle import manifest, parquet, proof
from service.evidence.bundle.archive import Writer, Written, written
from service.evidence.bundle.layout import (
    FILES,
    LEAVES,
    MANIFEST,
    PATHS,
    PROOF,
    SEAL_DETAIL,
    WITHHELD,
    Line,
    Query,
    RowFormat,
    line_of,
    member_of,
    without_text,
)
from service.evidence.bundle.proof import Earlier, Proof
from service.evidence.entry import commit, entry_bytes, moment
from service.evidence.note import Checkpoint, Signer
from service.evidence.payloads import Kind
from service.evidence.verify import origin_of

START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(hours=2)
TENANT = uuid.UUID(int=7)
STEP = timedelta(minutes=4)


class Hashes:
    """A tree whose leaves are all at hand."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._hashes = [merkle.leaf_hash(one) for one in leaves]

    def subtree(self, height: int, number: int) -> bytes:
        return merkle.root_of(self._hashes[number << height : (number + 1) << height])


@dataclass
class PlantedLog:
    """Entries at their places, and the rows that open them."""

    signer: Signer
    leaves: list[bytes] = field(default_factory=list)
    rows: list[tuple[str, datetime, Line]] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(4))  # noqa: S311

    @property
    def origin(self) -> str:
        return origin_of(self.signer.name, TENANT)

    def add(self, kind: str, at: datetime, payload: Mapping[str, Any], earlier: Sequence[int] = ()) -> Line:
        salt = self.rng.randbytes(16)
        line = Line(payload=payload, entry=len(self.leaves), salt=salt, earlier=earlier)
        self.leaves.append(entry_bytes(kind, at, commit(salt, payload)))
        self.rows.append((kind, at, line))
        return line

    def checkpoint(self, size: int | None = None) -> str:
        leaves = self.leaves[:size]
        root = merkle.root_of([merkle.leaf_hash(one) for one in leaves])
        return self.signer.sign(Checkpoint(self.origin, len(leaves), root).text())


def plant(name: str = "subtext.example") -> PlantedLog:
    """Return a log with hours before the period, two hours of it, and an hour behind it."""
    log = PlantedLog(note.generate(name))
    at = START - timedelta(hours=1)
    kinds = [Kind.EXPLANATION, Kind.EXPLANATION, Kind.ACCESS, Kind.INCIDENT_EVENT, Kind.DECODER]
    number = 0
    while at < END + timedelta(hours=1):
        kind = kinds[number % len(kinds)]
        key = str(uuid.UUID(int=number + 1))
        payload: dict[str, Any] = {"id": key, "at": moment(at), "figure": number / 7}
        if kind is Kind.EXPLANATION:
            sample = {"id": key, "token_id": number, "token_text": " sum", "layer": 20}
            payload |= {"text": f"reading {number}", "claims": None, "sample": sample, "matches": []}
        log.add(kind, at, payload)
        if number % 10 == 0:
            _add_flag(log, at, number)
        at += STEP
        number += 1
    return log


def _add_flag(log: PlantedLog, at: datetime, number: int) -> None:
    """Add a flag that changed once: an entry of each state, and one row."""
    first = log.add(Kind.FLAG, at, {"id": f"flag {number}", "positions": 1})
    kind, _, _ = log.rows.pop()
    commitment = commit(first.salt or b"", first.payload)
    payload = {"id": f"flag {number}", "positions": 2, "trail": [commitment.hex()]}
    assert first.entry is not None
    log.add(kind, at, payload, earlier=[first.entry])


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a bundle is asked to hold."""

    kinds: Sequence[str] = (*FILES,)
    with_text: bool = True
    withheld: Sequence[Mapping[str, Any]] = ()
    without: frozenset[int] = frozenset()
    """Entries whose rows are not handed out."""
    earlier: int | None = None
    form: RowFormat = RowFormat.NDJSON
    model: str | None = None
    """The one that the export is restricted to."""


def pack(log: PlantedLog, file: Path, wish: Wish | None = None) -> Path:
    """Write the bundle of the planted period; the export's seal becomes an entry of the log."""
    wish = wish or Wish()
    query = Query(kinds=wish.kinds, start=START, end=END, with_text=wish.with_text)
    rows = [one for one in log.rows if START <= one[1] < END and one[2].entry not in wish.without]
    # A decoder is handed out though it is older: rows of the period stand on it.
    older = next(one for one in log.rows if one[0] == Kind.DECODER)
    late = [one for one in log.rows if one[0] == Kind.TOMBSTONE and one not in rows]
    rows = [older, *rows, *late]
    with Writer(file) as bundle:
        files = {
            member_of(kind, wish.form): _add_rows(
                bundle,
                kind,
                wish.form,
                (written(line_of(_shown(line, kind, query))) for of, _, line in rows if of == kind),
            )
            for kind in FILES
            if kind in wish.kinds
        }
        files[WITHHELD] = bundle.lines(WITHHELD, map(written, map(dict, wish.withheld)))
        files["coverage.json"] = bundle.whole("coverage.json", written({"seen": 12, "sampled": 3}))
        content = manifest.compose(
            query, log.origin, files, {"export": str(uuid.UUID(int=9)), "query": {"model": wish.model}}
        )
        bundle.whole(MANIFEST, content)
        proven = _sealed(log, content, wish)
        size = note.read_checkpoint(log.signer.verifier.open(proven.note)).size
        end = _end(log, size)
        tree = Hashes(log.leaves[:size])
        before, behind = merkle.range_proof(tree, proven.first, end, size)
        bundle.lines(LEAVES, iter(log.leaves[proven.first : end]))
        inside = range(proven.first, end)
        outside = [
            line
            for of, _, line in rows
            if of in wish.kinds and line.entry is not None and line.entry not in inside
        ]
        bundle.lines(PATHS, (written(_path(log, tree, one, size)) for one in outside))
        whole = replace(proven, before=before, behind=behind)
        bundle.whole(PROOF, written(proof.told(whole)))
    return file


def _add_rows(bundle: Writer, kind: str, form: RowFormat, lines: Iterator[bytes]) -> Written:
    member = member_of(kind, form)
    if form is RowFormat.PARQUET:
        return bundle.table(member, table_of(kind), lines)
    return bundle.lines(member, lines)


def table_of(kind: str) -> pa.Schema:
    """Return the columns of what is planted."""
    columns = [pa.field("id", pa.string())]
    if kind == Kind.FLAG:
        return parquet.schema_of(
            [*columns, pa.field("positions", pa.int64()), pa.field("trail", pa.list_(pa.string()))]
        )
    columns += [pa.field("at", parquet.TIME), pa.field("figure", pa.float64())]
    if kind == Kind.EXPLANATION:
        numbers, texts = ("token_id", "layer"), ("id", "token_text")
        sample = [*((one, pa.int64()) for one in numbers), *((one, pa.string()) for one in texts)]
        columns += [pa.field("text", pa.string()), pa.field("claims", pa.string())]
        columns += [pa.field("sample", pa.struct(sample)), pa.field("matches", pa.list_(pa.string()))]
    return parquet.schema_of(columns)


def _path(log: PlantedLog, tree: Hashes, line: Line, size: int) -> dict[str, Any]:
    assert line.entry is not None
    path = [one.hex() for one in merkle.inclusion_proof(tree, line.entry, size)]
    return {"entry": line.entry, "at": moment(_at(log.leaves[line.entry])), "path": path}


def _shown(line: Line, kind: str, query: Query) -> Line:
    if kind != Kind.EXPLANATION or query.with_text:
        return line
    return replace(line, payload=without_text(line.payload), salt=None)


def _at(leaf: bytes) -> datetime:
    return datetime.fromisoformat(leaf.decode().split('"')[3])


def _first(log: PlantedLog) -> int:
    return max(number for number, one in enumerate(log.leaves) if _at(one) < START - timedelta(minutes=11))


def _end(log: PlantedLog, size: int) -> int:
    ripe = [
        number for number, one in enumerate(log.leaves[:size]) if _at(one) >= END + timedelta(minutes=10)
    ]
    return ripe[0] + 1


def _sealed(log: PlantedLog, content: bytes, wish: Wish) -> Proof:
    details = {SEAL_DETAIL: sha256(content).hexdigest()}
    at = END + timedelta(hours=1)
    seal = log.add(Kind.ACCESS, at, {"id": "seal", "action": "export", "details": details})
    log.rows.pop()
    assert seal.entry is not None
    size = len(log.leaves)
    tree = Hashes(log.leaves)
    earlier = None
    if wish.earlier is not None:
        path = merkle.consistency_proof(tree, wish.earlier, size)
        earlier = Earlier(note=log.checkpoint(wish.earlier), path=path)
    return Proof(
        note=log.checkpoint(),
        first=_first(log),
        before=[],
        behind=[],
        seal=replace(seal, at=at, path=merkle.inclusion_proof(tree, seal.entry, size)),
        earlier=earlier,
    )


def members_of(file: Path) -> dict[str, bytes]:
    """Return what a bundle holds, by member."""
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def rewrite(file: Path, members: Mapping[str, bytes]) -> Path:
    """Write a bundle with these members."""
    file.unlink(missing_ok=True)
    with Writer(file) as bundle:
        for name, content in members.items():
            bundle.whole(name, content)
    return file


@dataclass(frozen=True)
class Packed:
    """A bundle, and the log that it is of."""

    log: PlantedLog
    file: Path
    members: Mapping[str, bytes]


def packed_of(file: Path, wish: Wish) -> Packed:
    """Plant a log and write a bundle of it to the file."""
    log = plant()
    made = pack(log, file, wish)
    return Packed(log, made, members_of(made))
