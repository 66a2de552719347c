"""Who runs a command, for the access log."""

import os
import pwd


def os_user() -> str:
    """Return who runs the process, by the process itself and not by what the environment says."""
    user = os.getuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # as in a container that was started under a bare number
        return str(user)
