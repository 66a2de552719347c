"""Names of tenants: whose traffic an engine serves, as its operator says. No client has a say.

This module is a contract: the plugin names its engine's tenant, and block, record and counts carry the
name to the workers. What names none is of `DEFAULT_TENANT`: what a plugin or sidecar of before sent, too. A
reader of before ignores the name.
"""

import re
from typing import Annotated, Final

import msgspec

DEFAULT_TENANT: Final = "default"
"""The same as `service.store.identity.DEFAULT_TENANT`, which the store owns."""
NAMES: Final = "1 to 63 lower-case letters, digits and hyphens, with no hyphen first"
"""What to give, for messages to people."""
_PATTERN: Final = r"\A[a-z0-9][a-z0-9-]{0,62}\Z"
_NAME: Final = re.compile(_PATTERN)

TenantName = Annotated[str, msgspec.Meta(pattern=_PATTERN)]


def is_tenant_name(name: object) -> bool:
    """Tell whether a tenant may have this name."""
    return isinstance(name, str) and _NAME.match(name) is not None
