"""Deletion certificates as answered, with what proves them."""

import datetime as dt
import uuid
from typing import Any, Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.schemas.evidence import LogProof, log_proof
from service.retention.certificates import View, payload
from service.store.base import values_of
from service.store.evidence.proof import Proof


class DeletionCertificate(Answer):
    """What was removed at once, and by what right."""

    id: uuid.UUID
    reason: Literal["erasure", "retention"] = Field(description="Why; of `retention` a run.")
    authority: uuid.UUID = Field(description="The run or request, which its tombstones in the log name.")
    model: str | None = Field(description="Served model name; null: of several or all.")
    document: dict[str, Any] = Field(
        description="Class, period, counts by kind of row, first and last capture, tombstones, holds that "
        "were respected, and the size of the log's newest checkpoint before. Nothing of what was removed."
    )
    issued_at: dt.datetime = Field(description="UTC; the listing's order.")


class DeletionCertificatePage(Answer):
    """One page of certificates, newest first."""

    items: list[DeletionCertificate]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class ProvedCertificate(DeletionCertificate):
    """A certificate with what an auditor checks it by, offline and by the public key alone.

    HMAC-SHA256 by `salt` over `payload` in canonical JSON (RFC 8785) is the entry's commitment, and the
    proof leads from the entry to the root that the checkpoint signs.
    """

    payload: dict[str, Any] = Field(description="What the log commits to.")
    salt: str = Field(description="In hexadecimal.")
    proof: LogProof | None = Field(
        description="Of the newest checkpoint, the one after the deletion; null while none covers it yet."
    )


def certificate(view: View) -> DeletionCertificate:
    """Return the answer for one certificate."""
    return DeletionCertificate(**_fields(view))


def proved_certificate(view: View, found: Proof | None) -> ProvedCertificate:
    """Return the answer for one certificate with its proof."""
    row = view.certificate
    return ProvedCertificate(
        **_fields(view),
        payload=payload(values_of(row)),
        salt=(row.log_salt or b"").hex(),
        proof=None if found is None else log_proof(found),
    )


def _fields(view: View) -> dict[str, Any]:
    row = view.certificate
    same = ("id", "reason", "authority", "document", "issued_at")
    return {"model": view.model} | {name: getattr(row, name) for name in same}
