"""Where webhooks go: a file of names, URLs and secret files, refused as a whole when it is wrong."""

import base64
import binascii
import ipaddress
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tenants.tables import NAME_PATTERN
from subtext_sidecar.contract.secret import read_secret

MAX_DESTINATIONS: Final = 16  # each has a thread
_MAX_SECRETS: Final = 2
_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = range(24, 65)  # Standard Webhooks, "Signature scheme"


class Destination(BaseModel):
    """One receiver of every message of a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Kept with each delivery and shown; the URL is not, because it may hold a secret."""
    url: str
    secret_file: Path
    """One secret a line, the newest first; of two, messages carry a signature by each."""
    allow_private: bool = False
    """Whether it may lie at an address that the Internet does not route."""
    tenant: Annotated[str, Field(pattern=NAME_PATTERN)] = DEFAULT_TENANT
    """Whose incidents it is told of, and nobody else's."""
    ca_file: Path | None = None
    """Certificates to trust instead of the machine's."""

    @field_validator("url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError("write https://host/path")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("write it without a login and without a fragment; messages are signed instead")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("only loopback may be plain http; write https://")
        _ = parts.port  # ValueError when it is none
        return url

    @field_validator("ca_file")
    @classmethod
    def _is_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        _ = self.secrets
        return self

    @property
    def tenant_id(self) -> uuid.UUID:
        """The tenant's id."""
        return tenant_id(self.tenant)

    @property
    def parts(self) -> SplitResult:
        """The URL's parts."""
        return urlsplit(self.url)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What messages are signed with; ValueError names the file and the fix."""
        lines = [line.strip() for line in read_secret("secret_file", self.secret_file).splitlines()]
        found = tuple(line for line in lines if line)
        if not 1 <= len(found) <= _MAX_SECRETS:
            raise ValueError(f"secret_file is {self.secret_file}: write one secret a line, two at most")
        if not all(map(_is_secret, found)):
            raise ValueError(
                f"secret_file is {self.secret_file}: a secret is whsec_ and 24 to 64 bytes in base64;"
                ' make one: echo "whsec_$(openssl rand -base64 32)"'
            )
        return found


def is_loopback(host: str) -> bool:
    """Tell whether the host's name says that it is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_destinations(file: Path) -> Sequence[Destination]:
    """Return the file's destinations; ValueError names the entry and the field, never a secret."""
    try:
        found = TypeAdapter(list[Destination]).validate_json(read_secret("SUBTEXT_WEBHOOKS_FILE", file))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        raise ValueError(f"SUBTEXT_WEBHOOKS_FILE is {file}: {told.replace('Value error, ', '')}") from None
    names = [destination.name for destination in found]
    if len(set(names)) != len(names):
        raise ValueError(f"SUBTEXT_WEBHOOKS_FILE is {file}: two destinations have the same name")
    if len(found) > MAX_DESTINATIONS:
        raise ValueError(f"SUBTEXT_WEBHOOKS_FILE is {file}: {MAX_DESTINATIONS} destinations at most")
    return found


def _is_secret(text: str) -> bool:
    try:
        raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_PREFIX) and len(raw) in _SECRET_BYTES
