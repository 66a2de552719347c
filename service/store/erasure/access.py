"""Take erased ids out of the access log: the entries stay, with their totals. The caller commits.

The log commits to what is left of an entry; what it said before is for a tombstone to account for.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Uuid, any_, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, payload_of
from service.store.access.tables import AccessEntry, AccessSubject
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.evidence.rows import row_of

_SUBJECT = "subject"  # by which a reading of the access log says what it asked for


@dataclass(frozen=True, slots=True)
class Naming:
    """An entry that names what is erased."""

    values: dict[str, Any]
    commitments: Sequence[bytes]
    """To it as it is now; none for an entry of before the log."""
    names: frozenset[uuid.UUID] = field(default_factory=frozenset)
    """The erased ids that it names."""


def list_naming(session: Session, tenant: uuid.UUID, ids: Collection[uuid.UUID]) -> list[Naming]:
    """Return the tenant's entries that name one of these ids, locked until the transaction ends."""
    if not ids:
        return []
    wanted = AccessSubject.subject_id == any_(cast(list(ids), ARRAY(Uuid)))
    naming = select(AccessSubject.entry_id).where(AccessSubject.tenant_id == tenant, wanted).distinct()
    # By what was found, since as one statement all entries may be read.
    query = (
        select(AccessEntry)
        .where(AccessEntry.id == any_(cast(list(session.scalars(naming)), ARRAY(Uuid))))
        .order_by(AccessEntry.seq)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    found = [_naming(values_of(one), frozenset(ids)) for one in session.scalars(query)]
    return [one for one in found if one.names]  # one that was waited for may name none of them any more


def _naming(values: dict[str, Any], ids: frozenset[uuid.UUID]) -> Naming:
    commitments = row_of(Kind.ACCESS, values, at="at").commitments
    asked = values["details"].get(_SUBJECT)
    named = {*values["subject_ids"], *values["capture_ids"]} & ids
    named |= {one for one in ids if str(one) == asked}
    return Naming(values, commitments[-1:], frozenset(named))


def take_out(session: Session, entries: Sequence[Naming], ids: Collection[uuid.UUID]) -> None:
    """Take the ids out of the entries, and let the log commit to what is left of each."""
    if not entries:
        return
    session.execute(select(func.set_config("subtext.erasing", "on", True)))  # noqa: FBT003
    payloads, salts = [], []
    for one in entries:
        changes = _without(one, frozenset(ids))
        session.execute(
            update(AccessEntry).where(AccessEntry.id == one.values["id"]).values(changes),
            execution_options={"synchronize_session": False},
        )
        if one.commitments:
            payloads.append(payload_of(Kind.ACCESS, one.values | changes, changes["log_trail"]))
            salts.append(changes["log_salt"])
    session.execute(select(func.set_config("subtext.erasing", "off", True)))  # noqa: FBT003
    append(session, Kind.ACCESS, payloads, salts)


def _without(one: Naming, ids: frozenset[uuid.UUID]) -> dict[str, Any]:
    """Return the columns of an entry that change."""
    values = one.values
    changes: dict[str, Any] = {
        name: [each for each in values[name] if each not in ids] for name in ("subject_ids", "capture_ids")
    }
    details = dict(values["details"])
    if any(details.get(_SUBJECT) == str(each) for each in ids):
        del details[_SUBJECT]
    changes["details"] = details
    if one.commitments:
        changes["log_salt"] = entry.new_salt()
        changes["log_trail"] = [*(values["log_trail"] or ()), *one.commitments]
    return changes
