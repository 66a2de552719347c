"""Register the concepts that a worker watches for. The caller commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.tables import ConceptVersion


class ChangedConceptError(ValueError):
    """A version of a concept was used before with another definition; the message names what differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConcept:
    """A concept to register."""

    name: str
    version: int | None
    digest: str
    definition: Mapping[str, Any]


def register_concepts(session: Session, concepts: Sequence[NewConcept]) -> None:
    """Insert every definition unless it is known; raises ChangedConceptError.

    Flags are read by concept and version, so what those stood for must not change afterwards.
    """
    rows = [
        {
            "digest": concept.digest,
            "name": concept.name,
            "version": concept.version,
            "definition": dict(concept.definition),
        }
        for concept in sorted(concepts, key=lambda one: one.name)  # one order for all workers: no deadlock
    ]
    if not rows:
        return
    session.execute(insert(ConceptVersion).on_conflict_do_nothing(), rows)
    for concept in concepts:
        if concept.version is not None:
            _check_same(session, concept)


def _check_same(session: Session, concept: NewConcept) -> None:
    query = select(ConceptVersion.digest, ConceptVersion.definition).where(
        ConceptVersion.name == concept.name, ConceptVersion.version == concept.version
    )
    known = session.execute(query).one()
    if known.digest == concept.digest:
        return
    fields = sorted(
        name
        for name in known.definition.keys() | concept.definition.keys()
        if known.definition.get(name) != concept.definition.get(name)
    )
    raise ChangedConceptError(
        f"concept {concept.name!r}: {', '.join(fields)}: version {concept.version} was used with another"
        f" definition; set version: {_newest(session, concept.name) + 1}, or restore what it was"
    )


def _newest(session: Session, name: str) -> int:
    query = select(ConceptVersion.version).where(ConceptVersion.name == name)
    return max(version for version in session.execute(query).scalars() if version is not None)
