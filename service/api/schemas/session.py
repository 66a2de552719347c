"""Who is signed in, as answered."""

import datetime as dt
import uuid

from pydantic import Field

from service.api.caller import Caller
from service.api.schemas.answer import Answer


class SignedInCaller(Answer):
    """Who asks, what he may do, and until when."""

    session_id: uuid.UUID | None = Field(description="Null for an API key that was sent itself.")
    key_id: uuid.UUID | None = Field(description="The API key, also of a session; null for a person.")
    issuer: str | None = Field(
        description="Who says who the person is; null for a key.", examples=["https://login.example.com"]
    )
    person: str | None = Field(
        description="The issuer's `sub` of the person; null for a key.", examples=["248289761001"]
    )
    name: str | None = Field(description="To show: of the key, or what the issuer said of the person.")
    tenant_id: uuid.UUID = Field(description="Whose rows are read.")
    roles: list[str] = Field(description="That gave the scopes.", examples=[["reviewer"]])
    scopes: list[str] = Field(description="`admin` stands for all.", examples=[["flags:read"]])
    models: list[str] | None = Field(
        description="Served names of the only models that are read; null: all of the tenant.",
        examples=[["chat"]],
    )
    may_read_text: bool = Field(description="Whether texts and tokens are shown for a stated purpose.")
    idle_expires_at: dt.datetime | None = Field(
        description="When the session is over unless it is used before, UTC; null for a key."
    )
    expires_at: dt.datetime | None = Field(description="When it is over at the latest, UTC; null: never.")


class SignedOut(Answer):
    """That the session has ended here."""

    issuer_logout_url: str | None = Field(
        description="Where to send the browser to sign out at the issuer too; null where there is none."
    )


def signed_in(caller: Caller) -> SignedInCaller:
    """Return the answer for a caller."""
    same = ("session_id", "key_id", "issuer", "person", "may_read_text", "idle_expires_at", "expires_at")
    return SignedInCaller(
        name=caller.display_name,
        tenant_id=caller.reach.tenant,
        roles=list(caller.roles),
        scopes=sorted(caller.scopes),
        models=None if caller.reach.models is None else sorted(caller.reach.models),
        **{name: getattr(caller, name) for name in same},
    )
