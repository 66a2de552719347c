"""Which incidents need a second reviewer, and what a first one has proposed for them."""

import uuid
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from service.incidents.lifecycle import EventKind, State
from service.incidents.review import Identity, Proposal
from service.store.tables import ConceptVersion, Flag, Incident, IncidentEvent

_NEWEST: Final = (
    select(IncidentEvent)
    .ext(distinct_on(IncidentEvent.incident_id))
    .where(
        IncidentEvent.incident_id == any_(bindparam("incidents", type_=ARRAY(Uuid))),
        IncidentEvent.kind != EventKind.ASSIGNED,
    )
    .order_by(IncidentEvent.incident_id, IncidentEvent.version.desc())
    .subquery()
)
_STANDING: Final = select(aliased(IncidentEvent, _NEWEST)).where(_NEWEST.c.kind == EventKind.PROPOSED)
"""Nearly no incident has one, so all others' events are left where they are."""


def asking_for_two(session: Session, digests: Collection[str]) -> set[str]:
    """Return those of the definitions, by digest, that ask for a second reviewer."""
    asks = ConceptVersion.definition["second_review"].as_boolean()
    query = select(ConceptVersion.digest).where(ConceptVersion.digest.in_(digests), asks)
    return set(session.scalars(query)) if digests else set()


def list_standing(session: Session, incidents: Collection[uuid.UUID]) -> Mapping[uuid.UUID, IncidentEvent]:
    """Return the proposals that stand, by incident: nothing but assignments came after them."""
    found = session.scalars(_STANDING, {"incidents": list(incidents)}).all() if incidents else ()
    return {event.incident_id: event for event in found}


def needs_second(session: Session, incident: Incident) -> bool:
    """Tell whether a concept of the incident's flags asks for a second reviewer."""
    digests = select(Flag.concept_digest).where(
        Flag.model_id == incident.model_id,
        Flag.decoder_id == incident.decoder_id,
        Flag.capture_id == incident.capture_id,  # None becomes IS NULL
        Flag.request_id == incident.request_id,
        Flag.layer == incident.layer,
        Flag.concept_digest.is_not(None),
    )
    return bool(asking_for_two(session, [one for one in session.scalars(digests) if one is not None]))


def get_standing(session: Session, incident: uuid.UUID) -> Proposal | None:
    """Return the incident's proposal, None when none stands."""
    event = list_standing(session, [incident]).get(incident)
    return None if event is None else proposal_of(event)


def proposal_of(event: IncidentEvent) -> Proposal:
    """Return what an event of kind `proposed` proposes."""
    by = Identity(event.key_id, event.issuer, event.person)
    return Proposal(event.version, State(str(event.proposed_state)), event.labels, by)
