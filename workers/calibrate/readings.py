"""`subtext calibrate readings`: stored readings of benign requests, as `calibrate concepts` takes them."""

import argparse
import datetime as dt
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from service.store import engine as store_engine
from service.store.access.operator import os_user
from service.store.access.tables import MAX_SUBJECTS, Action, Purpose, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.read import benign
from service.store.tables import Decoder
from service.store.tenants.read import transaction
from subtext_sidecar.contract.tenant import NAMES, is_tenant_name
from workers.nla.errors import CalibrationError
from workers.settings import MonitoredSettings

_BAD_USE: Final = 2


def readings(argv: list[str]) -> int:
    """Write the stored readings of benign requests, a line of JSON each, and enter that somebody did."""
    parser = argparse.ArgumentParser(prog="subtext calibrate readings", description=readings.__doc__)
    parser.add_argument("--model", required=True, help="the audited model, as its readings are stored")
    parser.add_argument("--layer", type=int, required=True, help="the decoder's layer")
    parser.add_argument(
        "--tenant",
        type=_tenant,
        default=DEFAULT_TENANT,
        help="whose engines served them, if not default",
    )
    parser.add_argument("--after", type=_time, required=True, help="captured then or later, ISO 8601")
    parser.add_argument("--before", type=_time, required=True, help="captured before")
    parser.add_argument("--decoder-digest", help="of several decoders of the layer, as REST tells it")
    parser.add_argument(
        "--purpose",
        required=True,
        choices=[str(one) for one in Purpose],
        help="why; it is entered in the access log",
    )
    parser.add_argument("--note", help="more of why: a ticket's number, no name")
    parser.add_argument("--out", type=Path, required=True, help="the file; what was there is replaced")
    arguments = parser.parse_args(argv)
    try:
        database = store_engine.create_engine(
            MonitoredSettings().database, application_name="subtext-calibrate"
        )
        try:
            sessions = store_engine.session_factory(database)
            with transaction(sessions, tenant_id(arguments.tenant)) as session:
                written = _write(session, arguments)
                _enter(session, arguments, written)
            # Nobody has the texts before it is entered who read them.
            written.file.replace(arguments.out)
        finally:
            _unfinished(arguments).unlink(missing_ok=True)
            database.dispose()
    except CalibrationError as error:
        sys.stderr.write(f"subtext calibrate readings: {error}\n")
        return _BAD_USE
    except ValidationError as error:
        # Never the input: it may hold a password.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            sys.stderr.write(f"SUBTEXT_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}\n")
        return _BAD_USE
    sys.stderr.write("".join(f"{line}\n" for line in written.told))
    return 0


def _unfinished(arguments: argparse.Namespace) -> Path:
    """Return where the texts are until it is entered who read them; nothing stays there."""
    out: Path = arguments.out
    return out.with_name(f".{out.name}.unfinished")


class _Text(NamedTuple):
    explanation: uuid.UUID
    capture: uuid.UUID


class _Written(NamedTuple):
    file: Path
    """Under another name than asked for."""
    texts: Sequence[_Text]
    told: Sequence[str]


def _write(session: Session, arguments: argparse.Namespace) -> _Written:
    decoder = _choose(benign.list_decoders(session, arguments.model, arguments.layer), arguments)
    wanted = benign.Wanted(
        decoder_id=decoder.id, captured_after=arguments.after, captured_before=arguments.before
    )
    unfinished = _unfinished(arguments)
    texts: list[_Text] = []
    with unfinished.open("w", encoding="utf-8") as file:
        for row in benign.iterate_readings(session, wanted):
            file.write(json.dumps(_reading(row), ensure_ascii=False) + "\n")
            texts.append(_Text(row.explanation_id, row.capture_id))
    if not texts:
        raise CalibrationError(
            f"after, before: nothing of {arguments.model} was read then; give a span with traffic"
        )
    captures = {one.capture for one in texts}
    told = [
        f"{arguments.out}: {len(texts)} readings of {len(captures)} requests",
        f"decoder {decoder.name}, --decoder-digest {decoder.digest}",
    ]
    return _Written(unfinished, texts, told)


def _enter(session: Session, arguments: argparse.Namespace, written: _Written) -> None:
    """Enter in the access log that these texts were read, in the transaction that read them."""
    try:
        for at in range(0, len(written.texts), MAX_SUBJECTS):  # an entry names no more
            _add_entry(session, arguments, written.texts[at : at + MAX_SUBJECTS])
    except ProgrammingError as error:
        raise CalibrationError(
            f"SUBTEXT_DATABASE_URL: this login may not write the access log, so it may read no text:"
            f" use the service's ({type(error.orig).__name__})"
        ) from error


def _add_entry(session: Session, arguments: argparse.Namespace, part: Sequence[_Text]) -> None:
    subjects = Subjects(
        kind=SubjectKind.EXPLANATION,
        ids=[one.explanation for one in part],
        captures=list(dict.fromkeys(one.capture for one in part)),
    )
    entry = Entry(
        action=Action.READ_TEXT,
        operation="calibrate readings",
        os_user=os_user(),
        subjects=subjects,
        purpose=Purpose(arguments.purpose),
        purpose_note=arguments.note,
    )
    add_entry(session, entry)


def _reading(row: benign.ReadPosition) -> dict[str, Any]:
    """Return what `workers.calibrate.concepts.JudgedReading` takes."""
    return {
        "request": row.capture_id.hex,
        "position": row.position,
        "text": row.text,
        "verified": row.verified,
        "claims": row.claims,
        "captured_at": row.captured_at.isoformat(),
    }


def _choose(decoders: list[Decoder], arguments: argparse.Namespace) -> Decoder:
    found = [one for one in decoders if arguments.decoder_digest in (None, one.digest)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.digest for one in decoders) or "none"
    raise CalibrationError(
        f"decoder-digest: {len(found)} decoders of {arguments.model}, layer {arguments.layer}, of tenant"
        f" {arguments.tenant} are meant; name one of those that the store knows: {known}"
    )


def _tenant(text: str) -> str:
    if not is_tenant_name(text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no tenant's name: give {NAMES}")
    return text


def _time(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; add Z or an offset")
    return found
