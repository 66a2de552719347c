"""Make the file of an export: rows first, then the seal on their manifest, then the proof of both.

1. Wait until the log has every entry of the period, ten minutes after its end at the earliest.
2. Write rows and manifest from one snapshot, in which the reader meets what the key may read.
3. Enter the manifest's SHA-256 in the access log: the seal. Wait until a checkpoint covers it.
4. Write the entries of the period and the proof that they and the seal are in the signed tree.
"""

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import merkle
from service.evidence.bundle import manifest
from service.evidence.bundle import proof as proofs
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
    member_of,
)
from service.evidence.bundle.proof import Earlier, Proof
from service.evidence.entry import TRANSACTION_TIME, Leaf, commit, entry_bytes, moment
from service.evidence.payloads import Kind, payload_of
from service.exports import context, files
from service.exports.gather import Gathering
from service.exports.query import ExportKind, kinds_of
from service.exports.schemas import document_of, schema_of, table_of
from service.store.access.tables import MAX_SUBJECTS, AccessEntry, Action, Purpose, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.base import values_of
from service.store.evidence import range as leaves_of
from service.store.evidence import tree
from service.store.evidence.log import StoredLog
from service.store.evidence.proof import newest_checkpoint
from service.store.evidence.rows import Window
from service.store.evidence.tables import LogCheckpoint
from service.store.exports import write
from service.store.exports.tables import Export
from service.store.tenants import scope
from service.store.triage import Actor

OPERATION: Final = "make_export"
"""In the access log: the job, not a call."""
_LOOK_EVERY_SECONDS: Final = 0.5


class ExportError(RuntimeError):
    """An export cannot be made; ``code`` is stable, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes exports, one call each."""

    sessions: sessionmaker[Session]
    folder: Path
    kept: dt.timedelta
    """For how long a finished file may be downloaded."""
    signed_within_seconds: float
    """How long to wait for the log to take up and sign what is entered."""
    sleep: Callable[[float], None] = time.sleep

    def make(self, export_id: uuid.UUID) -> None:
        """Make an export's file; does nothing for one that is finished, failed or erased.

        Raises ExportError where no file can be made, and whatever the database raises when it is away.
        """
        with self.sessions.begin() as session:
            export = write.begin(session, export_id)
        if export is None:
            return
        part = files.begin(self.folder, export.tenant_id, export_id)
        rows, withheld = self._write(export, part)
        _, size, digest = files.complete(part)
        made = write.Made(bytes=size, sha256=digest, rows=rows, withheld=withheld)
        with self.sessions.begin() as session:
            is_wanted = write.finish(session, export_id, made, self.kept)
        if not is_wanted:
            files.remove(self.folder, export.tenant_id, export_id)

    def fail(self, export_id: uuid.UUID, code: str) -> None:
        """Give an export up."""
        with self.sessions.begin() as session:
            write.fail(session, export_id, code)
            export = session.get(Export, export_id)
        if export is not None:
            files.remove(self.folder, export.tenant_id, export_id)

    @contextmanager
    def _reading(self, export: Export) -> Iterator[Session]:
        """Open one snapshot that meets what the export may hold."""
        with self.sessions() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            scope.enter(session, scope.Reach(export.tenant_id, export.models))
            yield session

    def _write(self, export: Export, part: Path) -> tuple[int, int]:
        """Write the bundle; return how many rows it has, and how many entries of the period have none."""
        self._wait("the log has not taken up the period", lambda: self._is_logged(export))
        with Writer(part) as bundle:
            with self._reading(export) as session:
                newest = leaves_of.newest_pending(session, export.tenant_id)
                self._wait(
                    "the log has not taken up what was stored", lambda: self._is_taken_up(export, newest)
                )
                with self._reading(export) as log:
                    gathering = _gathering(session, log, export)
                    content = _write_rows(session, export, gathering, bundle)
            bundle.whole(MANIFEST, content)
            self._enter_texts(export, gathering)
            seal, at = self._seal(export, sha256(content).hexdigest())
            self._wait("no checkpoint covers the export's entry", lambda: self._is_signed(export, seal, at))
            with self._reading(export) as session:
                _write_proof(session, export, gathering, (seal, at), bundle)
        return gathering.handed_out.total(), gathering.withheld.total()

    def _wait(self, what: str, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + self.signed_within_seconds
        while not is_so():
            if time.monotonic() >= until:
                raise ExportError("log_not_signed", f"{what}: is `subtext log` running?")
            self.sleep(_LOOK_EVERY_SECONDS)

    def _is_logged(self, export: Export) -> bool:
        with self._reading(export) as session:
            now = session.execute(select(func.now())).scalar_one()
            oldest = leaves_of.oldest_pending(session, export.tenant_id)
            is_over = bool(now >= export.period_end + TRANSACTION_TIME)
            is_taken = oldest is None or oldest >= export.period_end
            return is_over and is_taken and newest_checkpoint(session, export.tenant_id) is not None

    def _is_taken_up(self, export: Export, newest: int) -> bool:
        """Tell whether all that waited up to this number has its place: rows of then may be looked up."""
        with self._reading(export) as session:
            return leaves_of.is_taken_up(session, export.tenant_id, newest)

    def _enter_texts(self, export: Export, gathering: Gathering) -> None:
        """Enter which texts are handed out, before there is a file of them."""
        for start in range(0, len(gathering.texts), MAX_SUBJECTS):
            part = gathering.texts[start : start + MAX_SUBJECTS]
            subjects = Subjects(
                kind=SubjectKind.EXPLANATION,
                ids=[explanation for explanation, _ in part],
                captures=list(dict.fromkeys(capture for _, capture in part)),
            )
            entry = _entry(export, Action.READ_TEXT, subjects, {"export": str(export.id)})
            with self.sessions.begin() as session:
                scope.enter(session, scope.Reach(export.tenant_id))
                add_entry(session, entry)

    def _seal(self, export: Export, digest: str) -> tuple[Line, dt.datetime]:
        """Enter the manifest's digest in the log; return the entry without its place, and its time."""
        subjects = Subjects(kind=SubjectKind.EXPORT, ids=[export.id])
        entry = _entry(export, Action.EXPORT, subjects, {SEAL_DETAIL: digest, "kinds": export.kinds})
        with self.sessions.begin() as session:
            scope.enter(session, scope.Reach(export.tenant_id))
            row = session.get_one(AccessEntry, add_entry(session, entry))
            at = session.execute(select(func.now())).scalar_one()
            payload, salt = payload_of(Kind.ACCESS, values_of(row)), row.log_salt
        return Line(payload=payload, entry=None, salt=salt), at

    def _is_signed(self, export: Export, seal: Line, _at: dt.datetime) -> bool:
        with self._reading(export) as session:
            leaf = _leaf_of(session, export, seal)
            signed = newest_checkpoint(session, export.tenant_id)
            return leaf is not None and signed is not None and signed.size > leaf.seq


def _entry(export: Export, action: Action, subjects: Subjects, details: dict[str, object]) -> Entry:
    return Entry(
        action=action,
        operation=OPERATION,
        **{name: getattr(export, name) for name in Actor._fields},
        subjects=subjects,
        details=details,
        purpose=None if export.purpose is None else Purpose(export.purpose),
        purpose_note=export.purpose_note,
    )


def _leaf_of(session: Session, export: Export, seal: Line) -> Leaf | None:
    commitment = commit(seal.salt or b"", seal.payload)
    return StoredLog(session, export.tenant_id).find([commitment]).get(commitment)


def _gathering(session: Session, log: Session, export: Export) -> Gathering:
    """Gather rows from one snapshot, and the places of their entries from a later one."""
    model_id = None
    if export.of_model is not None:
        model_id = context.model_id_of(session, export.of_model)
        if model_id is None:
            raise ExportError("unknown_model", f"no model {export.of_model!r} is met")
    size = tree.size_of(log, export.tenant_id)
    start, end = export.period_start - TRANSACTION_TIME, export.period_end + TRANSACTION_TIME
    first = leaves_of.first_before(log, export.tenant_id, start, size)
    places = first, leaves_of.last_behind(log, export.tenant_id, end, size)
    return Gathering(
        session=session,
        log=log,
        tenant=export.tenant_id,
        kinds=kinds_of(export.kinds),
        window=Window(export.period_start, export.period_end, model_id, places),
        with_text=export.with_text,
        is_restricted=model_id is not None or export.models is not None,
        first=first,
        size=size,
    )


def _write_rows(session: Session, export: Export, gathering: Gathering, bundle: Writer) -> bytes:
    """Write all but entries and proof; return the manifest."""
    window, form = gathering.window, RowFormat(export.format)
    members: dict[str, Written] = {}
    documents: dict[Kind, dict[str, Any]] = {}
    for kind in gathering.kinds:
        member = member_of(kind, form)
        if form is RowFormat.PARQUET:
            table = table_of(kind, with_text=export.with_text)
            members[member] = bundle.table(member, table, gathering.rows(kind))
            documents[kind] = document_of(kind, table, with_text=export.with_text)
        else:
            members[member] = bundle.lines(member, gathering.rows(kind))
            documents[kind] = schema_of(kind, with_text=export.with_text)
    members[WITHHELD] = bundle.lines(WITHHELD, gathering.unaccounted())
    if ExportKind.INCIDENTS in export.kinds:
        members["incidents.ndjson"] = bundle.lines("incidents.ndjson", context.incidents(session, window))
    configured = context.configurations(session, window, export.of_model)
    members["configuration.ndjson"] = bundle.lines("configuration.ndjson", configured)
    now = session.execute(select(func.now())).scalar_one()
    stated = context.coverage(session, window, export.of_model, now)
    members["coverage.json"] = bundle.whole("coverage.json", stated)
    for kind, document in documents.items():
        name = f"schemas/{FILES[kind].removesuffix('.ndjson')}.json"
        members[name] = bundle.whole(name, written(document))
    signed = newest_checkpoint(session, export.tenant_id)
    if signed is None:
        raise ExportError("log_not_signed", "there is no checkpoint any more; see: subtext verify")
    query = Query(
        kinds=[str(one) for one in gathering.kinds],
        start=window.start,
        end=window.end,
        with_text=export.with_text,
    )
    facts = {
        "export": str(export.id),
        "tenant": str(export.tenant_id),
        "made_at": moment(now),
        "made_by": f"subtext {version('subtext')}",
        "query": {"model": export.of_model, "models": export.models, "format": export.format},
        "rows": dict(gathering.handed_out),
        "withheld": dict(gathering.withheld),
        "decoders": context.decoders(session, window),
    }
    return manifest.compose(query, signed.note.split("\n", 1)[0], members, facts)


def _write_proof(
    session: Session, export: Export, gathering: Gathering, sealed: tuple[Line, dt.datetime], bundle: Writer
) -> None:
    seal, at = sealed
    leaf, signed = _leaf_of(session, export, seal), newest_checkpoint(session, export.tenant_id)
    if leaf is None or signed is None:
        raise ExportError("log_not_signed", "the export's entry is not in the log; see: subtext verify")
    stored, tenant = tree.Tree(session, export.tenant_id), export.tenant_id
    behind = leaves_of.last_behind(session, tenant, export.period_end + TRANSACTION_TIME, leaf.seq)
    end = behind + 1
    bundle.lines(
        LEAVES,
        (
            entry_bytes(one.kind, one.at, one.commitment)
            for one in leaves_of.list_leaves(session, tenant, gathering.first, end)
        ),
    )
    outside = [one for one in gathering.outside if not gathering.first <= one.seq < end]
    bundle.lines(PATHS, (written(_path(stored, one, signed.size)) for one in outside))
    before, after = merkle.range_proof(stored, gathering.first, end, signed.size)
    path = merkle.inclusion_proof(stored, leaf.seq, signed.size)
    proof = Proof(
        note=signed.note,
        first=gathering.first,
        before=before,
        behind=after,
        seal=Line(payload=seal.payload, entry=leaf.seq, salt=seal.salt, at=at, path=path),
        earlier=_earlier(session, export, stored, signed),
    )
    bundle.whole(PROOF, written(proofs.told(proof)))


def _path(stored: tree.Tree, leaf: Leaf, size: int) -> dict[str, object]:
    path = [one.hex() for one in merkle.inclusion_proof(stored, leaf.seq, size)]
    return {"entry": leaf.seq, "at": moment(leaf.at), "path": path}


def _earlier(session: Session, export: Export, stored: tree.Tree, signed: LogCheckpoint) -> Earlier | None:
    if export.earlier_size is None:
        return None
    found = session.get(LogCheckpoint, (export.tenant_id, export.earlier_size))
    if found is None:
        raise ExportError(
            "unknown_checkpoint", f"no checkpoint of {export.earlier_size} entries was signed"
        )
    return Earlier(note=found.note, path=merkle.consistency_proof(stored, found.size, signed.size))
