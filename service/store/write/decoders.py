"""Register a decoder and its model. The caller commits."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, payload_of
from service.store import identity
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.tables import Decoder, Model
from service.store.tenants import scope
from service.store.tenants.tables import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecoder:
    """A decoder to register."""

    model: str  # served model name
    d_model: int
    name: str
    digest: str
    layer: int
    fve_baseline: float
    shuffled_fve_p95: float
    calibration_n: int
    card: Mapping[str, Any]
    verified_above: Mapping[str, float] = field(default_factory=dict)
    """Threshold by position class; empty for a decoder with one threshold for all classes."""
    candidates: int = 1
    tenant: str = identity.DEFAULT_TENANT
    """Whose model it reads."""


def register_decoder(session: Session, decoder: NewDecoder) -> tuple[uuid.UUID, uuid.UUID]:
    """Insert model and decoder unless they exist; return (model id, decoder id).

    An existing decoder's row takes over only ``verified_above`` and ``candidates``, which older workers did
    not write. Raises ValueError when the stored model has another d_model, so is another model, and when
    there is no such tenant. The transaction is the tenant's from then on.
    """
    _name_tenant(session, decoder.tenant)
    model_id = identity.model_id(decoder.model, decoder.tenant)
    decoder_id = identity.decoder_id(decoder.digest, decoder.tenant)
    model_row = {"id": model_id, "name": decoder.model, "d_model": decoder.d_model}
    session.execute(insert(Model).values(model_row).on_conflict_do_nothing())
    known = session.execute(select(Model.d_model).where(Model.id == model_id)).scalar_one()
    if known != decoder.d_model:
        raise ValueError(
            f"model {decoder.model!r} is stored with d_model {known}, this decoder has {decoder.d_model};"
            " serve the new model under another name"
        )
    row = {
        "id": decoder_id,
        "model_id": model_id,
        "name": decoder.name,
        "digest": decoder.digest,
        "layer": decoder.layer,
        "fve_baseline": decoder.fve_baseline,
        "shuffled_fve_p95": decoder.shuffled_fve_p95,
        "calibration_n": decoder.calibration_n,
        "card": dict(decoder.card),
        "verified_above": dict(decoder.verified_above) or None,
        "candidates": decoder.candidates,
    }
    salt = entry.new_salt()
    session.execute(insert(Decoder).values(row | {"log_salt": salt}).on_conflict_do_nothing())
    # Locked only now: of two workers with the same new decoder the second sees what the first has stored.
    before = _stored(session, decoder_id)
    changes = {name: row[name] for name in ("verified_above", "candidates") if row[name] is not None}
    if any(before[name] != value for name, value in changes.items()):
        session.execute(update(Decoder).where(Decoder.id == decoder_id).values(changes))
    _log(session, before, _stored(session, decoder_id), salt)
    return model_id, decoder_id


def _stored(session: Session, decoder_id: uuid.UUID) -> dict[str, Any]:
    query = select(Decoder).where(Decoder.id == decoder_id).with_for_update()
    return values_of(session.scalars(query.execution_options(populate_existing=True)).one())


def _log(session: Session, before: Mapping[str, Any], stored: Mapping[str, Any], salt: bytes) -> None:
    """Commit to a decoder that is new, in no log yet, or has changed."""
    if stored["log_salt"] == salt:
        append(session, Kind.DECODER, [payload_of(Kind.DECODER, stored)], [salt])
        return
    trail = list(stored["log_trail"] or [])
    if before["log_salt"] is not None:
        if payload_of(Kind.DECODER, before) == payload_of(Kind.DECODER, stored):
            return
        trail.append(entry.commit(before["log_salt"], payload_of(Kind.DECODER, before, trail)))
    append(session, Kind.DECODER, [payload_of(Kind.DECODER, stored, trail)], [salt])
    values = {"log_salt": salt, "log_trail": trail}
    session.execute(update(Decoder).where(Decoder.id == stored["id"]).values(values))


def _name_tenant(session: Session, name: str) -> None:
    tenant = identity.tenant_id(name)
    if session.scalar(select(Tenant.id).where(Tenant.id == tenant)) is None:
        raise ValueError(f"there is no tenant {name!r}; make it first: subtext tenant create {name}")
    scope.set_tenant(session, tenant)
