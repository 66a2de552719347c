"""Register the concepts that a model's worker watches for. The caller commits.

Names and versions are each model's own. Definitions are kept by their content, once for all models.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, payload_of
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.tables import ConceptVersion, ModelConcept
from service.store.tenants.scope import DEFAULT_ID


class ChangedConceptError(ValueError):
    """A model's version of a concept was used with another definition; the message names what differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConcept:
    """A concept to register."""

    name: str
    version: int | None
    digest: str
    definition: Mapping[str, Any]


def register_concepts(session: Session, model_id: uuid.UUID, concepts: Sequence[NewConcept]) -> None:
    """Insert every definition unless the model has it; raises ChangedConceptError.

    A model's flags are read by concept and version, so what those stood for must not change afterwards.
    """
    rows = [
        {
            "digest": concept.digest,
            "name": concept.name,
            "version": concept.version,
            "definition": dict(concept.definition),
            "log_salt": entry.new_salt(),
        }
        for concept in sorted(concepts, key=lambda one: one.name)  # one order for all workers: no deadlock
    ]
    if not rows:
        return
    insertion = insert(ConceptVersion).on_conflict_do_nothing().returning(ConceptVersion)
    new = [values_of(one) for one in session.scalars(insertion, rows)]
    append(
        session,
        Kind.CONCEPT_VERSION,
        [payload_of(Kind.CONCEPT_VERSION, one) for one in new],
        [one["log_salt"] for one in new],
        tenant=DEFAULT_ID,  # a definition is kept once for all tenants, so its entry is too
    )
    of_model = [
        {"model_id": model_id, "digest": row["digest"], "name": row["name"], "version": row["version"]}
        for row in rows
    ]
    session.execute(insert(ModelConcept).on_conflict_do_nothing(), of_model)
    for concept in concepts:
        if concept.version is not None:
            _check_same(session, model_id, concept)


def _check_same(session: Session, model_id: uuid.UUID, concept: NewConcept) -> None:
    query = (
        select(ConceptVersion.digest, ConceptVersion.definition)
        .join(ModelConcept, ModelConcept.digest == ConceptVersion.digest)
        .where(
            ModelConcept.model_id == model_id,
            ModelConcept.name == concept.name,
            ModelConcept.version == concept.version,
        )
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
        f" definition; set version: {_newest(session, model_id, concept.name) + 1}, or restore what it was"
    )


def _newest(session: Session, model_id: uuid.UUID, name: str) -> int:
    query = select(ModelConcept.version).where(ModelConcept.model_id == model_id, ModelConcept.name == name)
    return max(version for version in session.execute(query).scalars() if version is not None)
