"""The policy file: a JSON document with the sections ``capture`` and ``screen``, read again and again."""

from pathlib import Path
from typing import Final

from subtext_sidecar.local.policy import Policies, PolicyError, parse_document

MAX_FILE_BYTES: Final = 1 << 16

LoadedPolicy = Policies


class PolicyFile:
    """Watches one file by its content, so that renames, symlink swaps and coarse clocks all work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: bytes | str | None = None  # the last content, or why it could not be read
        self._version: str | None = None

    def poll(self) -> LoadedPolicy | None:
        """Return the policies if they changed since the last call, else None.

        Raises PolicyError once for each content that cannot be used, a missing file included; the
        policies returned before stay the ones to use.
        """
        seen = self._read()
        if seen == self._seen:
            return None
        self._seen = seen
        if isinstance(seen, str):
            raise PolicyError(seen)
        loaded = parse_document(seen, f"policy file {self._path}")
        if loaded.version == self._version:
            return None
        self._version = loaded.version
        return loaded

    def _read(self) -> bytes | str:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            return f"policy file {self._path} cannot be read: {error.strerror}"
        if len(content) > MAX_FILE_BYTES:
            return f"policy file {self._path} is longer than {MAX_FILE_BYTES} bytes: it is no policy"
        return content
