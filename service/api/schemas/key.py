"""API keys as answered and as somebody asks for one. A secret is in one answer, and nowhere else."""

import datetime as dt
import uuid
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from service import auth
from service.api.caller import Caller
from service.api.parameters import PRINTABLE, Name
from service.api.schemas.answer import Answer
from service.api.vocabulary import KeyRole, KeyScope
from service.store.tables import ApiKey

MOST_DAYS: Final = 366
_MAX_SECRET_LENGTH: Final = 256


class AskedKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)] = Field(
        description="By which people know it: the access log keeps it.", examples=["night shift"]
    )
    role: KeyRole | None = Field(default=None, description="Gives its scopes; either this or `scopes`.")
    scopes: list[KeyScope] | None = Field(
        default=None, min_length=1, max_length=len(auth.Scope), description="Either these or `role`."
    )
    models: list[Name] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Served names of the only models that it reads; null: all that the maker reads.",
    )
    expires_in_days: int = Field(default=90, ge=1, le=MOST_DAYS, description="Days until it expires.")
    own_secret: SecretStr = Field(
        min_length=1,
        max_length=_MAX_SECRET_LENGTH,
        description="The secret of a key that may make keys: the caller's own once more, or for somebody "
        "who signed in, one that he was given. A session alone makes none.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> "AskedKey":
        if (self.role is None) == (self.scopes is None):
            raise PydanticCustomError("role_or_scopes", "give either role or scopes")
        return self

    @property
    def granted(self) -> list[str]:
        """The scopes that it asks for, sorted."""
        given = self.scopes if self.role is None else auth.SCOPES[auth.Role(self.role)]
        return sorted(set(map(str, given or ())))


class ListedKey(Answer):
    """One key, without its secret, which is kept nowhere."""

    id: uuid.UUID
    name: str = Field(examples=["night shift"])
    role: str | None = Field(description="Null: its scopes were given one by one.", examples=["reader"])
    scopes: list[str] = Field(description="`admin` stands for all.", examples=[["flags:read"]])
    models: list[str] | None = Field(description="Null: all of its tenant.")
    state: Literal["valid", "revoked", "expired"]
    created_at: dt.datetime = Field(description="UTC; the listing's order.")
    expires_at: dt.datetime | None = Field(description="Null: never.")
    last_used_at: dt.datetime | None = Field(description="To the minute; null: never.")
    revoked_at: dt.datetime | None
    made_by: uuid.UUID | None = Field(
        description="The key whose secret made it; null: it was made on the command line."
    )
    is_own: bool = Field(description="The caller's own key, or that of its session.")
    may_revoke: bool = Field(
        description="Whether the caller may revoke it: it is valid and may do no more than the caller may."
    )


class RevokedKey(ListedKey):
    """A key that was just revoked."""

    revoked_with: list[uuid.UUID] = Field(
        description="Keys that were revoked with it: those that it made, and those that these made."
    )


class KeyPage(Answer):
    """One page of keys, newest first."""

    grantable_scopes: list[str] = Field(description="What the caller may give to a key that it makes.")
    grantable_roles: list[str] = Field(description="Roles of which it has every scope.")
    grantable_models: list[str] | None = Field(description="Null: all of its tenant.")
    items: list[ListedKey]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class MadeKey(Answer):
    """A key that was just made."""

    key: ListedKey
    secret: str = Field(description="Shown now and never again: only its SHA-256 is kept.")


def exceeds(key: ApiKey, caller: Caller) -> bool:
    """Tell whether a key may do more than the caller may."""
    own = caller.reach.models
    is_wider = own is not None and (key.models is None or not set(key.models) <= set(own))
    return is_wider or bool(auth.exceeds(key.scopes, caller.scopes))


def listed_key(key: ApiKey, caller: Caller, now: dt.datetime) -> ListedKey:
    """Return the answer for one key, with its state at ``now``."""
    same = ("id", "name", "role", "scopes", "models", "created_at")
    times = ("expires_at", "last_used_at", "revoked_at", "made_by")
    state = auth.state_of(key, now)
    may = auth.allows(caller.scopes, auth.Scope.KEYS_WRITE)
    return ListedKey(
        **{name: getattr(key, name) for name in (*same, *times)},
        state=state,
        is_own=key.id == caller.key_id,
        may_revoke=may and state == "valid" and not exceeds(key, caller),
    )


def grantable(caller: Caller) -> dict[str, list[str] | None]:
    """Return what the caller may give to a key."""
    roles = [role for role in auth.Role if not auth.exceeds(auth.SCOPES[role], caller.scopes)]
    models = caller.reach.models
    return {
        "grantable_scopes": [scope for scope in auth.Scope if auth.allows(caller.scopes, scope)],
        "grantable_roles": [*map(str, roles)],
        "grantable_models": None if models is None else sorted(models),
    }
