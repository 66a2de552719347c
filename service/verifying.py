"""`subtext verify`: hold a bundle against a public key, or a live store against a folder of checkpoints."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.evidence import folder
from service.evidence.bundle import command
from service.evidence.cosignature import WitnessVerifier, read_witness
from service.evidence.note import NoteError, Verifier, read_verifier
from service.evidence.timestamp import Authority, TimestampError, read_authority
from service.evidence.timestamped import Kept, Reach
from service.evidence.verify import Report, Witnessed, origin_of, verify
from service.settings import SettingsError, store_settings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory
from service.store.evidence import tree
from service.store.evidence.log import StoredLog
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from service.timestamping import read_timestamped
from service.witnessing import read_cosigned

_BAD_USE: Final = 2
_COPIED_WITHIN_SECONDS: Final = 2.0
_STATEMENT_SECONDS: Final = 3600.0


def run(argv: list[str]) -> int:
    """Verify a bundle, or every tenant's log; 0 when all fits, 1 when something does not, 2 for bad use."""
    options = _parser().parse_args(argv)
    if (options.witness is None) != (options.cosignatures is None):
        _parser().error("--witness and --cosignatures go together")
    if (options.timestamps is None) != (options.roots is None):
        _parser().error("--timestamps and --roots go together")
    try:
        verifier = read_verifier(options.public_key.read_text())
        earlier = None if options.earlier is None else options.earlier.read_text()
        if options.bundle is not None:
            return command.run(options.bundle, verifier, earlier)
        settings = store_settings()
        witness = None if options.witness is None else read_witness(options.witness.read_text())
        authority = None if options.roots is None else read_authority(options.roots.read_bytes())
    except (SettingsError, NoteError, TimestampError, OSError) as error:
        sys.stderr.write(f"subtext verify: {error}\n")
        return _BAD_USE
    for name in ("checkpoints", "timestamps"):
        place = getattr(options, name)
        if place is None and name == "timestamps":
            continue
        if place is None or not place.is_dir():
            sys.stderr.write(f"subtext verify: --{name}: {place} is no folder\n")
            return _BAD_USE
    engine = create_engine(
        settings.database, application_name="subtext-verify", statement_timeout_seconds=_STATEMENT_SECONDS
    )
    try:
        with session_factory(engine)() as session:
            others = Others(witness, options.cosignatures, authority, options.timestamps)
            return _verify(session, options.checkpoints, verifier, others)
    except (SQLAlchemyError, UnusableDatabaseError, folder.FolderError) as error:
        sys.stderr.write(f"subtext verify: {type(error).__name__}: {error}\n")
        return _BAD_USE
    finally:
        engine.dispose()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subtext verify",
        description="Hold BUNDLE, which an export made, against the log's public key; nothing else is"
        " needed. Without BUNDLE, recompute the evidence log in SUBTEXT_DATABASE_URL from its rows and"
        " entries and hold it against the signed checkpoints. What does not fit is named, the first thing"
        " first.",
    )
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="file that an export made")
    parser.add_argument(
        "--key", "--public-key", dest="public_key", type=Path, required=True,
        help="file with what `subtext log keygen` printed",
    )  # fmt: skip
    parser.add_argument(
        "--earlier",
        type=Path,
        help="a checkpoint that was kept: the bundle's log must have grown out of it",
    )
    parser.add_argument("--checkpoints", type=Path, help="the folder that `subtext log` writes")
    parser.add_argument("--witness", type=Path, help="public key of a witness, which must have cosigned")
    parser.add_argument("--cosignatures", type=Path, help="the folder that `subtext witness` writes")
    parser.add_argument("--timestamps", type=Path, help="the folder that `subtext timestamp` writes")
    parser.add_argument("--roots", type=Path, help="root certificates of the authority of timestamps, PEM")
    return parser


class Others(NamedTuple):
    """Who else has signed, and where that is kept."""

    witness: WitnessVerifier | None
    cosignatures: Path
    authority: Authority | None
    timestamps: Path

    def witnessed(self, tenant: UUID) -> Witnessed | None:
        """Return what the witness has kept of a tenant's log, if one is asked for."""
        if self.witness is None:
            return None
        return Witnessed(self.witness, read_cosigned(self.cosignatures, tenant))

    def timestamped(self, tenant: UUID) -> Kept | None:
        """Return the timestamps of a tenant's log, if they are asked for."""
        if self.authority is None:
            return None
        return Kept(self.authority, tuple(read_timestamped(self.timestamps, tenant)))


def _verify(session: Session, checkpoints: Path, verifier: Verifier, others: Others) -> int:
    # Before the snapshot: what is signed already must be in it.
    tenants = folder.tenants(checkpoints)
    cosigned = {tenant: others.witnessed(tenant) for tenant in tenants}
    timestamped = {tenant: others.timestamped(tenant) for tenant in tenants}
    before = {tenant: folder.read(checkpoints, tenant).whole for tenant in tenants}
    _begin(session)
    if any(notes and not _is_copied(session, tenant, notes[-1]) for tenant, notes in before.items()):
        # The copy comes a moment after the file.
        session.rollback()
        time.sleep(_COPIED_WITHIN_SECONDS)
        _begin(session)
    fits = True
    for tenant in sorted({*session.scalars(select(Tenant.id)), *before}):
        scope.set_tenant(session, tenant)  # a reader meets nothing where no tenant is named
        notes = list(before.get(tenant, ()))
        # What was signed between the two: only that has a copy in the snapshot.
        copies = {one.note for one in tree.list_notes(session, tenant)}
        notes += [one for one in folder.read(checkpoints, tenant).whole[len(notes) :] if one in copies]
        report = verify(
            StoredLog(session, tenant),
            notes,
            verifier,
            origin_of(verifier.name, tenant),
            witnessed=cosigned.get(tenant),
            timestamped=timestamped.get(tenant),
        )
        fits &= not report.findings
        _tell(str(tenant), report)
    return 0 if fits else 1


def _begin(session: Session) -> None:
    """Begin a transaction in which everything is of one moment: rows are written meanwhile."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def _is_copied(session: Session, tenant: UUID, note: str) -> bool:
    scope.set_tenant(session, tenant)
    return any(one.note == note for one in tree.list_notes(session, tenant))


def _tell(tenant: str, report: Report) -> None:
    for found in report.findings:
        sys.stdout.write(f"{tenant}  {found.what}  {found.where}: {found.why}\n")
    counts = {
        "tenant": tenant,
        "findings": len(report.findings),
        "rows_verified": report.rows,
        "rows_not_in_log": report.not_in_log,
        "entries": report.leaves,
        "entries_waiting": report.pending,
        "entries_of_unknown_kind": report.unknown,
        "checkpoints": report.checkpoints,
        "tombstones": report.tombstones,
        "entries_erased": report.erased,
        "entries_cosigned": report.cosigned,
        **_timestamps(report.timestamped),
    }
    sys.stdout.write(json.dumps(counts) + "\n")


def _timestamps(reach: Reach | None) -> dict[str, object]:
    if reach is None:
        return {"entries_timestamped": 0, "timestamps": 0}
    return {
        "entries_timestamped": reach.entries,
        "timestamps": reach.timestamps,
        "timestamped_from": reach.first_at.isoformat(),
        "timestamped_to": reach.last_at.isoformat(),
        "longest_to_timestamp_seconds": round(reach.lag.total_seconds(), 1),
    }
