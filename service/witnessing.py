"""`subtext witness`: cosign a log's checkpoints as long as they are one history. For somebody else to run.

It keeps its own key, and of each log the newest note that it has cosigned. What it reads of the database it
believes as far as the proofs hold that it makes of it.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import cosignature, folder, merkle
from service.evidence.cosignature import Cosigner
from service.evidence.note import Checkpoint, NoteError, Verifier, read_checkpoint, read_verifier
from service.evidence.verify import origin_of
from service.settings import SettingsError, store_settings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory
from service.store.evidence import tree
from service.store.tenants import scope

_BAD_USE: Final = 2
_REFUSED: Final = 1
_SUFFIX: Final = ".note"


class OtherHistoryError(RuntimeError):
    """What the log shows is not what it has shown before; the message names the tenant and the sizes."""


class Witness:
    """Cosigns the newest checkpoint of each tenant's log."""

    def __init__(
        self,
        cosigner: Cosigner,
        verifier: Verifier,
        checkpoints: Path,
        cosignatures: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``checkpoints`` is read alone; ``cosignatures`` is the witness's own."""
        self._cosigner = cosigner
        self._verifier = verifier
        self._checkpoints = checkpoints
        self._cosignatures = cosignatures
        self._clock = clock

    def look(self, session: Session) -> int:
        """Cosign what has grown; return how many logs have.

        Raises OtherHistoryError for a log that does not grow out of what was cosigned, NoteError for a note
        that is not of the log's key or not the witness's own, and DamagedLogError.
        """
        known = {UUID(one.stem) for one in self._cosignatures.glob(f"*{_SUFFIX}")}
        return sum(
            self._look(session, tenant) for tenant in sorted({*folder.tenants(self._checkpoints), *known})
        )

    def _look(self, session: Session, tenant: UUID) -> bool:
        last = self._last(tenant)
        notes = folder.read(self._checkpoints, tenant).whole
        if not notes:
            if last is not None:
                raise OtherHistoryError(f"tenant {tenant}: {last.size} entries were cosigned, and no"
                    " checkpoint is left")  # fmt: skip
            return False
        newest = read_checkpoint(self._verifier.open(notes[-1]))
        if newest.origin != origin_of(self._verifier.name, tenant):
            raise NoteError(f"tenant {tenant}: the newest checkpoint is of the log {newest.origin}")
        if last == newest:
            return False
        if last is not None:
            scope.set_tenant(session, tenant)
            _check_growth(tree.Tree(session, tenant), tenant, last, newest)
        self._keep(tenant, self._cosigner.cosign(notes[-1], int(self._clock())))
        return True

    def _last(self, tenant: UUID) -> Checkpoint | None:
        written = read_cosigned(self._cosignatures, tenant)
        return None if written is None else read_checkpoint(self._cosigner.verifier.open(written).text)

    def _keep(self, tenant: UUID, written: str) -> None:
        """Replace the note of before at once: a kill leaves the one or the other."""
        file = self._cosignatures / f"{tenant}{_SUFFIX}"
        unfinished = file.with_suffix(".tmp")
        with unfinished.open("w") as opened:
            opened.write(written)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.rename(file)


def read_cosigned(cosignatures: Path, tenant: UUID) -> str | None:
    """Return the newest note of a tenant's log that the witness has cosigned."""
    file = cosignatures / f"{tenant}{_SUFFIX}"
    return file.read_text() if file.exists() else None


def _check_growth(shown: merkle.Subtrees, tenant: UUID, last: Checkpoint, newest: Checkpoint) -> None:
    if newest.size < last.size:
        raise OtherHistoryError(
            f"tenant {tenant}: the newest checkpoint is of {newest.size} entries, and {last.size} were"
            " cosigned"
        )
    try:
        proof = merkle.consistency_proof(shown, last.size, newest.size)
        merkle.check_consistency(last.size, last.root, newest.size, newest.root, proof)
    except merkle.ProofError as error:
        raise OtherHistoryError(f"tenant {tenant}: {error}, of which {last.size} were cosigned") from error


def run(argv: list[str]) -> int:
    """Witness until told to stop, or look once; 1 when a log shows another history."""
    options = _parse(argv)
    if options.action == "keygen":
        return _keygen(options.file, options.name)
    try:
        settings = store_settings()
        witness = Witness(
            _read_key(options.key), read_verifier(options.public_key.read_text()), options.checkpoints,
            options.cosignatures,
        )  # fmt: skip
    except (SettingsError, NoteError, OSError) as error:
        sys.stderr.write(f"subtext witness: {error}\n")
        return _BAD_USE
    for name in ("checkpoints", "cosignatures"):
        if not getattr(options, name).is_dir():
            sys.stderr.write(f"subtext witness: --{name}: {getattr(options, name)} is no folder\n")
            return _BAD_USE
    engine = create_engine(settings.database, pool_size=1, application_name="subtext-witness")
    try:
        return _serve(witness, session_factory(engine), every=None if options.once else options.every)
    finally:
        engine.dispose()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="subtext witness",
        description="Cosign the checkpoints of the evidence log in SUBTEXT_DATABASE_URL, whose login only"
        " reads, as long as each grows out of the one before. Ends with 1 when one does not.",
    )
    parser.add_argument("--key", type=Path, help="private key of the witness, that keygen wrote")
    parser.add_argument("--public-key", type=Path, help="public key of the log")
    parser.add_argument("--checkpoints", type=Path, help="the folder that subtext log writes; only read")
    parser.add_argument("--cosignatures", type=Path, help="the witness's own folder, which it remembers by")
    parser.add_argument("--once", action="store_true", help="look once and end")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between looks; %(default)s")
    actions = parser.add_subparsers(dest="action")
    keygen = actions.add_parser("keygen", help="make a witness's key; its public half is printed")
    keygen.add_argument("file", type=Path, help="where to write the private key; must not be there yet")
    keygen.add_argument("--name", required=True, help="of the witness")
    options = parser.parse_args(argv)
    needed = ("key", "public_key", "checkpoints", "cosignatures")
    missing = [name for name in needed if getattr(options, name) is None]
    if options.action is None and missing:
        parser.error(f"--{missing[0].replace('_', '-')} is missing")
    return options


def _keygen(file: Path, name: str) -> int:
    try:
        cosigner = cosignature.generate(name)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (NoteError, OSError) as error:
        sys.stderr.write(f"subtext witness keygen: {error}\n")
        return _BAD_USE
    with os.fdopen(descriptor, "w") as opened:
        opened.write(cosigner.encode() + "\n")
    sys.stdout.write(cosigner.verifier.encode() + "\n")
    return 0


def _read_key(file: Path) -> Cosigner:
    encoded = file.read_text()
    if file.stat().st_mode & 0o077:
        raise OSError(f"--key is {file}, which others may read: chmod 600")
    return cosignature.read_cosigner(encoded)


def _serve(witness: Witness, sessions: sessionmaker[Session], *, every: float | None) -> int:
    while True:
        try:
            with sessions() as session:
                witness.look(session)
        except (OtherHistoryError, NoteError, folder.FolderError, tree.DamagedLogError) as error:
            sys.stderr.write(f"subtext witness: nothing is cosigned: {error}\n")
            return _REFUSED
        except (SQLAlchemyError, UnusableDatabaseError, OSError) as error:
            sys.stderr.write(f"subtext witness: {type(error).__name__}: it looks again later\n")
            if every is None:
                return _BAD_USE
        if every is None:
            return 0
        time.sleep(every)
