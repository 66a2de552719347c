"""The secret of the tests' engines, which nobody needs to guard."""

from pathlib import Path
from typing import Final

from subtext_sidecar.plugin.secret import DrawKey, key_of

SECRET: Final = b"0123456789abcdef" * 4
KEY: Final[DrawKey] = key_of(SECRET)


def write_secret(path: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    """Write it where an engine reads it."""
    path.write_bytes(content)
    path.chmod(mode)
    return path
