"""`subtext reread`: read kept vectors again with the decoder of then, and tell whether it says the same."""

import argparse
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store import engine as store_engine
from service.store.access.operator import os_user
from service.store.access.tables import MAX_SUBJECTS, Action, Purpose, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.read.explanations import View
from service.store.tenants import scope
from workers.nla.decoder import Decoder
from workers.reread import again, compare, found
from workers.reread.again import OpenDecoder
from workers.reread.compare import Outcome, Status
from workers.settings import MonitoredSettings
from workers.vectors.plan import load_key

_BAD_USE: Final = 2


class RereadSettings(MonitoredSettings):
    """What `subtext reread` needs."""

    decoder_dir: Path = Field(description="the decoder of then, or a folder with decoders in it")
    vectors_key_file: Path = Field(description="that the workers had")


class Asked(NamedTuple):
    """Which explanations, of whom, and what for where their text is shown."""

    wanted: found.Wanted
    tenant: str
    purpose: Purpose | None = None
    """None: no text is shown."""
    note: str | None = None
    tolerance: float = compare.TOLERANCE


class Answer(NamedTuple):
    """What came of each explanation, and what decoders run on now and ran on then, where it is another."""

    outcomes: Sequence[Outcome]
    changed: Mapping[str, Any]


def reread(argv: list[str]) -> int:
    """Read again; 0 when all is identical, 1 when something differs, 2 when something cannot be read."""
    options = _parse(argv)
    given = {} if options.decoder_dir is None else {"decoder_dir": options.decoder_dir}
    try:
        settings = RereadSettings(**given)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = f"SUBTEXT_{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            sys.stderr.write(f"subtext reread: {name}{problem['msg'].removeprefix('Value error, ')}\n")
        return _BAD_USE
    asked = Asked(
        found.Wanted(options.sample, options.explanation, options.request),
        options.tenant,
        None if options.purpose is None else Purpose(options.purpose),
        options.note,
        options.tolerance,
    )
    database = store_engine.create_engine(settings.database, application_name="subtext-reread")
    try:
        sessions = store_engine.session_factory(database)
        answer = run(sessions, settings.vectors_key_file, asked, opener(settings.decoder_dir))
    except (SQLAlchemyError, ValueError, OSError) as error:
        sys.stderr.write(f"subtext reread: {error}\n")
        return _BAD_USE
    finally:
        database.dispose()
    render = as_json if options.json else as_text
    sys.stdout.write(render(answer, shows_text=options.show_text))
    return compare.exit_status(answer.outcomes)


def run(sessions: sessionmaker[Session], key_file: Path, asked: Asked, open_decoder: OpenDecoder) -> Answer:
    """Find, open and read again what is asked for; where a purpose is stated, enter it in the access log.

    Raises ValueError when there is no such explanation, or the key file cannot be used.
    """
    wrapping = load_key(key_file)
    with sessions() as session:
        scope.set_tenant(session, tenant_id(asked.tenant))
        views = found.find(session, asked.wanted)
        opened = [found.opened(session, view, wrapping) for view in views]
    if not views:
        raise ValueError(f"there is no such explanation of tenant {asked.tenant!r}; see --tenant")
    read = again.read_again(
        [one for one in opened if isinstance(one, found.Found)], open_decoder, tolerance=asked.tolerance
    )
    outcomes = [*(one for one in opened if isinstance(one, Outcome)), *read.outcomes]
    if asked.purpose is not None:
        _log_access(sessions, views, asked, outcomes)
    places = {view.explanation.id: place for place, view in enumerate(views)}
    outcomes.sort(key=lambda one: places[one.recorded.explanation_id])
    return Answer(outcomes, read.changed)


def opener(folder: Path) -> OpenDecoder:
    """Return how a decoder of this folder is loaded, once its digest is that of then."""

    def open_decoder(digest: str, candidates: int) -> Decoder:
        # Before vLLM is imported: it reads its environment once.
        from workers.nla.engine.verbalizer import EngineSettings, prepare_environment

        prepare_environment()
        from workers.nla.engine.nla_decoder import NlaDecoder

        its_folder = again.find_decoder(folder, digest, candidates=candidates)
        return NlaDecoder.open(its_folder, EngineSettings(candidates=candidates))

    return open_decoder


def as_json(answer: Answer, *, shows_text: bool) -> str:
    """Return the answer as one JSON object on a line."""
    told = {
        "explanations": [one.figures() | (_texts(one) if shows_text else {}) for one in answer.outcomes],
        "summary": compare.summary(answer.outcomes),
        "engine_changed": dict(answer.changed),
    }
    return json.dumps(told) + "\n"


def as_text(answer: Answer, *, shows_text: bool) -> str:
    """Return the answer as lines for people."""
    lines = []
    for one in answer.outcomes:
        lines.append(f"{one.recorded.explanation_id}  {one.status:<9}  {_figures(one)}{one.why}".rstrip())
        if shows_text:
            lines.append(f"  recorded: {one.recorded.text!r}")
        if shows_text and one.status == Status.DIFFERS:
            lines.append(f"  reread:   {one.text!r}")
    summary = compare.summary(answer.outcomes)
    share = summary["identical_share"]
    interval = "" if share is None else f", 95% interval {share['ci95'][0]:.2f} to {share['ci95'][1]:.2f}"
    lines.append(
        f"{summary['identical']} of {summary['reread']} identical{interval};"
        f" {summary['explanations'] - summary['reread']} could not be read again"
    )
    lines.extend(
        f"{name} was {values['recorded']} and is {values['reread']}: a text may differ by that alone"
        for name, values in answer.changed.items()
    )
    return "".join(f"{line}\n" for line in lines)


def _texts(one: Outcome) -> dict[str, Any]:
    return {"text": {"recorded": one.recorded.text, "reread": one.text}}


def _figures(one: Outcome) -> str:
    if one.cosine is None or one.fve is None:
        return ""
    recorded = one.recorded
    return f"cosine {one.cosine:.4f} ({recorded.cosine:.4f})  fve {one.fve:.4f} ({recorded.fve:.4f})  "


def _log_access(
    sessions: sessionmaker[Session], views: Sequence[View], asked: Asked, outcomes: Sequence[Outcome]
) -> None:
    """Enter that these texts are read, before any is shown."""
    statuses = [one.status for one in outcomes]
    counts = {str(status): statuses.count(status) for status in Status}
    with sessions.begin() as session:
        scope.set_tenant(session, tenant_id(asked.tenant))
        for at in range(0, len(views), MAX_SUBJECTS):  # an entry names no more
            shown = views[at : at + MAX_SUBJECTS]
            subjects = Subjects(
                kind=SubjectKind.EXPLANATION,
                ids=[view.explanation.id for view in shown],
                captures=list(dict.fromkeys(map(found.capture_of, shown))),
            )
            add_entry(
                session,
                Entry(
                    action=Action.READ_TEXT,
                    operation="reread",
                    os_user=os_user(),
                    subjects=subjects,
                    details=counts,
                    purpose=asked.purpose,
                    purpose_note=asked.note,
                ),
            )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="subtext reread",
        description="Read kept vectors again with the decoder that read them first and compare text, cosine"
        " and FVE with what is stored. Exits with 0 when all is identical, 1 when something differs, 2 when"
        " something cannot be read again. Settings: SUBTEXT_DATABASE_URL, whose login must own the store,"
        " SUBTEXT_VECTORS_KEY_FILE, SUBTEXT_DECODER_DIR.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--sample", type=uuid.UUID, help="a sample's id: all of its explanations")
    which.add_argument("--explanation", type=uuid.UUID, help="an explanation's id")
    which.add_argument("--request", help=f"any id of a request: its newest {found.MOST} explanations")
    parser.add_argument("--tenant", default=DEFAULT_TENANT, help="whose they are; default: %(default)s")
    parser.add_argument("--decoder-dir", metavar="DIR", help="in place of SUBTEXT_DECODER_DIR")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=compare.TOLERANCE,
        help="of the cosine, and of FVE what follows from it; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--show-text", action="store_true", help="print the texts; needs --purpose")
    parser.add_argument("--purpose", choices=[str(one) for one in Purpose], help="what they are read for")
    parser.add_argument("--note", help="a ticket's number, never personal data; kept for good")
    options = parser.parse_args(argv)
    if options.show_text != (options.purpose is not None):
        parser.error("--show-text and --purpose go together: whoever reads a text says what for")
    if options.note is not None and options.purpose is None:
        parser.error("--note: belongs to a --purpose")
    return options
