"""The operator's secret, which keys every draw: without it nobody can tell what will be sampled.

His canaries prove themselves by the same secret, under a key of their own. Subject keys have a secret of
their own, since it must outlive this one: who replaced it would find nobody's samples of before.

It comes from a file, because a command line can be read by every process of its host, and vLLM hashes
and logs its configuration.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple, NewType

from subtext_sidecar.contract.canary import CanaryKey, canary_key
from subtext_sidecar.contract.subject import tenant_secret
from subtext_sidecar.plugin.sampling.subject import SubjectReader
from subtext_sidecar.plugin.settings import SUBJECT_SECRET_FILE, CaptureSettings

DrawKey = NewType("DrawKey", bytes)

MIN_BYTES: Final = 32
_MAX_BYTES: Final = 4096
_KEY_BYTES: Final = 32
_PURPOSE: Final = b"subtext-draw-key"
_FORBIDDEN: Final = stat.S_IROTH | stat.S_IWOTH
_MAKE: Final = "make one with `(umask 077; openssl rand -hex 32 > FILE)`"


class Keys(NamedTuple):
    """What one secret keys; neither key tells anything of the other."""

    draw: DrawKey
    canary: CanaryKey


class SecretError(ValueError):
    """The secret cannot be used; the message names the setting, the file and the fix."""


def key_of(secret: bytes) -> DrawKey:
    """Return the key that a secret stands for; the line end behind it does not count."""
    return DrawKey(
        hashlib.blake2b(secret.rstrip(b"\r\n"), digest_size=_KEY_BYTES, person=_PURPOSE).digest()
    )


def read_keys(path: Path, where: str) -> Keys:
    """Return the keys of the secret in a file, or raise SecretError; ``where`` names the setting in it."""
    secret = read_secret(path, where)
    return Keys(key_of(secret), canary_key(secret))


def read_secret(path: Path, where: str) -> bytes:
    """Return what is in a secret's file, or raise SecretError; ``where`` names the setting in it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{where}: {path} cannot be read ({error.strerror}): {_MAKE}") from error
    if mode & _FORBIDDEN:
        raise SecretError(
            f"{where}: {path} is open to every user of this host (mode {stat.S_IMODE(mode):04o}): "
            f"`chmod o= {path}`, and replace a secret that others may have seen"
        )
    size = len(secret.rstrip(b"\r\n"))
    if not MIN_BYTES <= size <= _MAX_BYTES:
        raise SecretError(
            f"{where}: {path} must hold {MIN_BYTES} to {_MAX_BYTES} bytes, not "
            f"{size if size <= _MAX_BYTES else 'more'}: {_MAKE}"
        )
    return secret


def subject_reader(settings: CaptureSettings) -> SubjectReader | None:
    """Return what reads whose data a request is, None where that is not kept; raises SecretError.

    Without the secret nothing is captured: what nobody can find any more, nobody can erase.
    """
    if settings.subjects == "off" or settings.subject_secret_file is None:
        return None
    secret = read_secret(Path(settings.subject_secret_file), SUBJECT_SECRET_FILE)
    return SubjectReader(
        tenant_secret(secret, settings.tenant), is_proof_needed=settings.subjects == "proved"
    )
