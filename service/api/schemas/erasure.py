"""Requests for erasure as asked and answered: never what they are about, once they are asked."""

import datetime as dt
import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.parameters import RequestId
from service.api.schemas.answer import Answer, Attribution
from service.api.schemas.decision import RemovalDecision
from service.store.erasure.requests import Told
from service.store.retention import tables


class NewErasure(BaseModel):
    """What to erase."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Literal["request", "capture", "trace", "subject", "tenant"] = Field(
        description="What `identifier` is of. `tenant`: all that was captured for the key's tenant so far."
    )
    identifier: RequestId | None = Field(
        default=None,
        description="An id of the audited request, a capture's id, or the 32 hexadecimal digits of "
        "a trace or a subject key; none for a tenant. It is kept until the erasure is done, and shown "
        "to nobody.",
        examples=["chat-1"],
    )


class Erasure(Attribution):
    """How far an erasure is, in counts alone, and who asked for it."""

    id: uuid.UUID
    state: Literal["open", "done", "cancelled"] = Field(
        description="`done`: nothing was left, nor came after it. What a legal hold keeps leaves it open. "
        "`cancelled`: somebody objected, and nothing was erased; it is `open` until the next sweep says so."
    )
    scope: Literal["request", "capture", "trace", "subject", "tenant"]
    asked_at: dt.datetime = Field(description="UTC; the listing's order.")
    due_at: dt.datetime = Field(description="30 days later.")
    objectable_until: dt.datetime | None = Field(
        description="Nothing is erased before, unless somebody else confirms; null for a request of before "
        "requests waited."
    )
    decision: RemovalDecision | None = Field(
        description="What was said while it waited; null: nothing was."
    )
    finished_at: dt.datetime | None = Field(description="Null while it is open.")
    counts: dict[str, int] = Field(
        description="What went so far, by table; `stream_entries` from streams and dead letters, "
        "`log_entries` are entries of the evidence log that tombstones cover now.",
        examples=[{"explanations": 12, "samples": 12, "log_entries": 14}],
    )
    held: int = Field(
        description="Rows that a legal hold keeps, at the last look.",
        examples=[0],
    )
    commitment: str = Field(description="Hexadecimal; the certificate's salt opens it.")


class Certificate(Answer):
    """What proves of whom an erasure was. It is given this once, and kept nowhere."""

    salt: str = Field(
        description="Hexadecimal. HMAC-SHA256 by it over the canonical JSON (RFC 8785) of `erasure` (the "
        "id), `identifier`, `scope` and `v` (1) is `commitment`; so it is in the access log's entry."
    )


class NewErasureAnswer(Erasure):
    """The request, with its certificate."""

    certificate: Certificate


class ErasurePage(Answer):
    """One page of requests, newest first."""

    items: list[Erasure]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def erasure(told: Told, decision: tables.RemovalDecision | None = None) -> Erasure:
    """Return the answer for one request."""
    other = {"commitment": told.commitment.hex(), "decision": decision}
    return Erasure.model_validate(told._asdict() | other)


def new_erasure(told: Told, salt: bytes) -> NewErasureAnswer:
    """Return the answer to who asked."""
    return NewErasureAnswer(**dict(erasure(told)), certificate=Certificate(salt=salt.hex()))
