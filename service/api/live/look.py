"""One look at the store for everybody who listens: in one transaction, as a reader of one tenant."""

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.caller import Asker, Caller, caller_of
from service.api.live.hub import AwayError, End, Find, Listener, Look, Part
from service.api.schemas import live as schemas
from service.api.schemas.answer import Answer
from service.coverage.losses import sums_by_model
from service.store import keys
from service.store.engine import UnusableDatabaseError
from service.store.people import sessions as people
from service.store.read import coverage, live
from service.store.tenants import scope

_log: Final = structlog.get_logger(__name__)
_MINUTE: Final = dt.timedelta(minutes=1)
_STATEMENT_TIMEOUT: Final = text("SELECT set_config('statement_timeout', '3000', true)")
"""One tenant's slow look must not keep the others waiting."""

_SCOPES: Final[Mapping[Part, auth.Scope]] = {
    Part.COVERAGE: auth.Scope.COVERAGE_READ,
    Part.READINGS: auth.Scope.EXPLANATIONS_READ,
    Part.INCIDENTS: auth.Scope.FLAGS_READ,
}


def listener_of(caller: Caller) -> Listener:
    """Return whom the caller's stream is for."""
    return Listener(
        reach=caller.reach,
        scopes=caller.scopes,
        parts=frozenset(part for part, needed in _SCOPES.items() if auth.allows(caller.scopes, needed)),
        key_id=caller.key_id,
        session_id=caller.session_id,
    )


def finder(sessions: sessionmaker[Session]) -> Find:
    """Return what looks into this store."""

    def find(reach: scope.Reach, parts: Collection[Part], listeners: Collection[Listener]) -> Look:
        now = dt.datetime.now(dt.UTC)
        try:
            with sessions() as session:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                scope.enter(session, reach)
                session.execute(_STATEMENT_TIMEOUT)
                over = _over(session, listeners, now)
                found = {part: _line(look(session, part, now)) for part in parts}
        except (SQLAlchemyError, UnusableDatabaseError) as error:
            _log.warning("live_look_failed", error_type=type(error).__name__)
            raise AwayError from error
        return Look(now.isoformat(), found, over)

    return find


def look(session: Session, part: Part, now: dt.datetime) -> Answer:
    """Return one part as it is now."""
    match part:
        case Part.COVERAGE:
            return _coverage(session, now)
        case Part.READINGS:
            since = now.replace(second=0, microsecond=0) - live.READINGS_OF_LAST
            return schemas.readings(since, live.list_readings(session, since))
        case Part.INCIDENTS:
            tested = live.count_tested(session, now - live.TESTS_OF_LAST)
            return schemas.incidents(live.count_undecided(session), live.list_changed(session), tested)


def _coverage(session: Session, now: dt.datetime) -> Answer:
    end = now.replace(second=0, microsecond=0) + _MINUTE
    wanted = coverage.Range(start=end - live.COVERAGE_OF_LAST, end=end)
    settled_before = coverage.list_settled_before(session)
    counts = coverage.list_counts(session, wanted, "minute", settled_before)
    by_minute = {
        start: sums_by_model([count for count in counts if count.start == start])
        for start in sorted({count.start for count in counts})
    }
    return schemas.coverage(wanted.start, wanted.end, settled_before, sums_by_model(counts), by_minute)


def _line(answer: Answer) -> bytes:
    return answer.model_dump_json(by_alias=True).encode()


def _over(session: Session, listeners: Collection[Listener], now: dt.datetime) -> dict[Listener, End]:
    """Return whose key or session works no more, or grants something else than it did."""
    of_keys = keys.list_by_ids(session, [one.key_id for one in listeners if one.key_id])
    of_sessions = people.list_by_ids(session, [one.session_id for one in listeners if one.session_id])
    over = {}
    for one in listeners:
        asker = Asker(
            key=of_keys.get(one.key_id) if one.key_id else None,
            session=of_sessions.get(one.session_id) if one.session_id else None,
        )
        end = _end_of(one, asker, now)
        if end is not None:
            over[one] = end
    return over


def _end_of(listener: Listener, asker: Asker, now: dt.datetime) -> End | None:
    key, found = asker.key, asker.session
    has_key = listener.key_id is None or (key is not None and auth.state_of(key, now) == "valid")
    has_session = listener.session_id is None or (
        found is not None and auth.session_state_of(found, now) == "valid"
    )
    if not (has_key and has_session):
        return End.ACCESS_ENDED
    caller = caller_of(asker)
    is_same = (caller.scopes, caller.reach) == (listener.scopes, listener.reach)
    return None if is_same else End.ACCESS_CHANGED
