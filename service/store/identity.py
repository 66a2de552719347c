"""Ids that a redelivery computes again: UUIDv5 of what a row identifies.

Samples have theirs from ``subtext_sidecar.contract.record.sample_id``, because the wire contract owns it.
"""

import hashlib
import json
import uuid
from typing import Final

DEFAULT_TENANT: Final = "default"
"""Whose everything is that names no tenant: of a store of before there were tenants, all of it."""
_NAMESPACE: Final = uuid.UUID("2b1f3d52-6a0e-5c1e-8a55-0f7f1f2ad9c4")


def tenant_id(name: str) -> uuid.UUID:
    """Return the id of the tenant of this name."""
    return _derive("tenant", name)


def model_id(name: str, tenant: str = DEFAULT_TENANT) -> uuid.UUID:
    """Return the id of the model that a tenant serves under ``name``; two tenants' are never the same."""
    # Models of before tenants keep their ids.
    return _derive("model", name) if tenant == DEFAULT_TENANT else _derive("model", name, tenant)


def decoder_id(digest: str, tenant: str = DEFAULT_TENANT) -> uuid.UUID:
    """Return the id of a tenant's decoder whose files and calibration have this SHA-256."""
    # As for models. Whoever else reads with the same pair tells nobody that he does.
    return _derive("decoder", digest) if tenant == DEFAULT_TENANT else _derive("decoder", digest, tenant)


def explanation_id(sample: uuid.UUID, decoder: uuid.UUID) -> uuid.UUID:
    """Return the id of what one decoder said about one sample."""
    return _derive("explanation", str(sample), str(decoder))


def flag_id(model: uuid.UUID, capture: str, layer: int, concept: str, decoder: uuid.UUID) -> uuid.UUID:
    """Return the id of one concept's flag on one capture; of before captures, on one request id."""
    return _derive("flag", str(model), capture, str(layer), concept, str(decoder))


def incident_id(model: uuid.UUID, capture: str, layer: int, decoder: uuid.UUID) -> uuid.UUID:
    """Return the id of what was found on one capture at one layer by one decoder."""
    return _derive("incident", str(model), capture, str(layer), str(decoder))


def incident_event_id(incident: uuid.UUID, version: int) -> uuid.UUID:
    """Return the id of the event that brought the incident to this version."""
    return _derive("incident event", str(incident), str(version))


def request_test_id(model: uuid.UUID, capture: uuid.UUID, layer: int, decoder: uuid.UUID) -> uuid.UUID:
    """Return the id of the test whether one capture at one layer is an anomaly to one decoder."""
    return _derive("request test", str(model), capture.hex, str(layer), str(decoder))


def capture_key(
    capture_id: uuid.UUID | None, model: uuid.UUID, request_id: str, tenant: uuid.UUID
) -> uuid.UUID:
    """Return what tells a capture apart from all others; of before captures, from model and request id.

    A capture of another tenant than the default one is told apart by its model too, which is his own: an
    engine of his that repeats somebody's capture takes no name from it.
    """
    if capture_id is not None and tenant == _DEFAULT_ID:
        return capture_id
    # No UUIDv5, because PostgreSQL has to come to the same for what it stored before (migration 0009).
    of_model = request_id if capture_id is None else capture_id.hex
    return uuid.UUID(bytes=hashlib.sha256(f"{model}/{of_model}".encode()).digest()[:16])


def capture_name(capture_id: uuid.UUID | None, model: uuid.UUID, request_id: str) -> uuid.UUID:
    """Return what a tenant's access log names a capture by: its id, as REST shows it, if it has one."""
    return capture_key(capture_id, model, request_id, _DEFAULT_ID)


def _derive(*parts: str) -> uuid.UUID:
    # JSON keeps ("a", "bc") and ("ab", "c") apart.
    return uuid.uuid5(_NAMESPACE, json.dumps(parts))


_DEFAULT_ID: Final = tenant_id(DEFAULT_TENANT)
