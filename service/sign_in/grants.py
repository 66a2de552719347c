"""What people may do: a file that gives groups of the issuer our roles, tenant and models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service import auth
from service.auth import Role, Scope
from service.store.identity import DEFAULT_TENANT
from service.store.tenants.tables import NAME_PATTERN
from subtext_sidecar.contract.secret import read_secret

MAX_GRANTS: Final = 1000


class Grant(BaseModel):
    """What the people of one group may do, and with whose rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Annotated[str, Field(min_length=1, max_length=512)]
    """A value of the claim that SUBTEXT_OIDC_GROUPS_CLAIM names."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    tenant: Annotated[str, Field(pattern=NAME_PATTERN)] = DEFAULT_TENANT
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Served names of the only models that are read; None: all of the tenant."""

    @property
    def scopes(self) -> Sequence[Scope]:
        """The scopes of the roles."""
        return sorted({scope for role in self.roles for scope in auth.SCOPES[role]})


def read_grants(file: Path) -> Sequence[Grant]:
    """Return the file's grants in its order; ValueError names the entry and the field."""
    try:
        found = TypeAdapter(list[Grant]).validate_json(read_secret("SUBTEXT_OIDC_GRANTS_FILE", file))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        raise ValueError(f"SUBTEXT_OIDC_GRANTS_FILE is {file}: {told}") from None
    if not 1 <= len(found) <= MAX_GRANTS:
        raise ValueError(f"SUBTEXT_OIDC_GRANTS_FILE is {file}: write 1 to {MAX_GRANTS} grants")
    return found


def groups_in(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    """Return the groups that a claim names: a list, or one alone.

    A name with dots leads into objects (``realm_access.roles``) unless a claim has just that name.
    """
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, str)]


def choose(grants: Sequence[Grant], groups: Sequence[str]) -> Grant | None:
    """Return the first grant to one of the groups.

    One alone: scopes of one and models of another together would be more than either says.
    """
    return next((grant for grant in grants if grant.group in groups), None)
