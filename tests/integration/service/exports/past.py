"""Rows and entries of two hours ago: the period of an export is over for ten minutes at the least."""

import datetime as dt
import uuid
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, text, update
from sqlalchemy.orm import Session

from service.evidence import entry
from service.store.access.tables import AccessEntry
from service.store.base import Base
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.evidence.log import StoredLog
from service.store.evidence.rows import list_rows
from service.store.evidence.tables import LogPending, LogTombstone
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.retention.tables import DeletionCertificate, LegalHold, RemovalDecision, RetentionVersion
from service.store.tables import Decoder, Explanation, Flag, IncidentEvent
from tests.integration.service import seed

AT = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=2)
FROM, TO = AT - dt.timedelta(minutes=30), AT + dt.timedelta(minutes=30)
TENANT = tenant_id(DEFAULT_TENANT)


_TIMES: tuple[tuple[type[Base], str], ...] = (
    (Explanation, "created_at"),
    (Decoder, "created_at"),
    (Flag, "created_at"),
    (Flag, "updated_at"),
    (IncidentEvent, "at"),
    (AccessEntry, "at"),
    (LogTombstone, "at"),
    (RetentionVersion, "set_at"),
    (LegalHold, "placed_at"),
    (RemovalDecision, "at"),
    (DeletionCertificate, "issued_at"),
    (ConfigurationVersion, "created_at"),
    (ConfigurationContent, "created_at"),
    (ConfigurationPeriod, "began_at"),
    (ConfigurationPeriod, "last_seen_at"),
    (ConfigurationPeriod, "ended_at"),
)


class Past(NamedTuple):
    """Ids of what is stored."""

    explanations: list[uuid.UUID]
    incident: uuid.UUID


def plant(session: Session, model: str = "tiny") -> Past:
    """Store three explanations, a flag and an incident of two hours ago, and what commits to them."""
    audited = seed.add_model(session, model)
    made = [
        seed.add_explanation(
            session, audited, position=position, concept="deception", claims=seed.CLAIMS, captured_at=AT
        )
        for position in range(3)
    ]
    incident = seed.add_incident(session, seed.add_flag(session, audited))
    session.flush()
    stored = Past([one.id for one in made], incident.id)
    for table in (Explanation, Decoder):
        session.execute(update(table).values(created_at=AT, log_salt=entry.new_salt()))
    session.execute(
        update(Flag).values(created_at=AT, updated_at=AT, log_salt=entry.new_salt(), log_trail=None)
    )
    session.execute(update(IncidentEvent).values(at=AT, log_salt=entry.new_salt()))
    session.execute(delete(LogPending))
    session.expire_all()
    for part in list_rows(session, TENANT):
        for row in part:
            values = {"kind": row.kind, "commitments": b"".join(row.commitments), "at": AT}
            session.execute(insert(LogPending).values(values))
    return stored


def move(session: Session, at: dt.datetime) -> None:
    """Let all that was stored just now have been stored then: nothing of it may be in the log yet."""
    session.flush()
    session.execute(text("SET LOCAL session_replication_role = replica"))
    for table, column in _TIMES:
        name = table.__tablename__
        session.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER ALL"))  # some obey no role
        recent = getattr(table, column) > func.now() - dt.timedelta(minutes=30)
        if column == "last_seen_at":  # what was not seen for an hour cannot end any more
            recent &= ConfigurationPeriod.ended_at.is_not(None)
        session.execute(update(table).where(recent).values({column: at}))
        session.execute(text(f"ALTER TABLE {name} ENABLE TRIGGER ALL"))
    session.execute(delete(LogPending))
    session.expire_all()
    log = StoredLog(session, TENANT)
    for part in list_rows(session, TENANT):
        known = log.find([one for row in part for one in row.commitments])
        for row in part:
            new = b"".join(one for one in row.commitments if one not in known)
            if new:
                session.execute(insert(LogPending).values({"kind": row.kind, "commitments": new, "at": at}))


def asked(**more: Any) -> dict[str, Any]:
    """Return the body that asks for everything in the period."""
    kinds = ["explanations", "flags", "incidents", "access_log"]
    return {"kinds": kinds, "from": FROM.isoformat(), "to": TO.isoformat()} | more
