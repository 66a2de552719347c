"""Subject keys: keyed pseudonyms of the persons whose data requests are. Of the standard library alone.

The operator's gateway knows who sends a request. It names him under `ARGUMENT` in ``vllm_xargs``, by the
id that the operator knows him by or, with a proof, by his subject key alone. The plugin sends on the key,
so that no id of a person leaves the engine. All is HMAC-SHA256 (RFC 2104): without the secret nobody can
tell whose key it is, not even by trying all ids that there are. Keys of one person under two tenants have
nothing in common.

A proof is ``{Unix seconds of its end}.{subject key}.{code}``, the last two in hexadecimal.
"""

import hashlib
import hmac
import re
from typing import Final, NamedTuple

ARGUMENT: Final = "subtext_subject"
MAX_ID_BYTES: Final = 256
MAX_LIFETIME_SECONDS: Final = 3600  # a request may wait long for its turn in an engine
MIN_SECRET_BYTES: Final = 32
KEYS: Final = "32 lower-case hexadecimal digits"
"""What a subject key is, for messages to people."""
_KEY_DIGITS: Final = 32  # 128 bits: two persons do not meet by chance
_NAMING: Final = b"subtext-subject-key/1\n"
_PROVING: Final = b"subtext-subject-proof/1\n"
_KEY: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PROOF: Final = re.compile(r"([1-9][0-9]{0,11})\.([0-9a-f]{32})\.([0-9a-f]{64})", re.ASCII)
_MAX_PROOF_CHARACTERS: Final = 12 + 1 + 32 + 1 + 64


class SubjectSecret(NamedTuple):
    """What one tenant's subject keys and proofs are made with; neither part tells anything of the other."""

    naming: bytes
    proving: bytes


def tenant_secret(secret: bytes, tenant: str) -> SubjectSecret:
    """Return the tenant's part of the operator's secret, behind which a line end does not count.

    Raises ValueError when the secret is short enough to be guessed.
    """
    used = secret.rstrip(b"\r\n")
    if len(used) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret has {len(used)} bytes: it needs {MIN_SECRET_BYTES}")
    name = tenant.encode()
    return SubjectSecret(
        hmac.digest(used, _NAMING + name, hashlib.sha256),
        hmac.digest(used, _PROVING + name, hashlib.sha256),
    )


def is_subject_key(text: object) -> bool:
    """Tell whether this may be a subject key."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def subject_key(secret: SubjectSecret, subject_id: str) -> str:
    """Return the subject key of the person that the operator knows by this id.

    An id counts as it is written: `Ada` and `ada` are two persons. Raises ValueError where this is no id.
    """
    try:
        said = subject_id.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, whose bytes others would write otherwise
        raise ValueError("the subject id is no text that UTF-8 can hold") from error
    if not 0 < len(said) <= MAX_ID_BYTES:
        raise ValueError(f"the subject id has {len(said)} bytes: give 1 to {MAX_ID_BYTES}")
    return hmac.digest(secret.naming, said, hashlib.sha256).hex()[:_KEY_DIGITS]


def make_proof(secret: SubjectSecret, key: str, ends_at: int) -> str:
    """Return the proof that the operator names this subject key; it ends at a Unix time in seconds."""
    return f"{ends_at}.{key}.{_code(secret, ends_at, key)}"


def looks_proved(said: str) -> bool:
    """Tell whether this is meant to be a proof: then it is no subject id."""
    return len(said) <= _MAX_PROOF_CHARACTERS and _PROOF.fullmatch(said) is not None


def read_proof(secret: SubjectSecret, said: str, now: float) -> str | None:
    """Return the subject key that is proved; None when it is no proof, another's, over, or for too long."""
    found = _PROOF.fullmatch(said) if len(said) <= _MAX_PROOF_CHARACTERS else None
    if found is None:
        return None
    ends_at, key = int(found[1]), found[2]
    if not hmac.compare_digest(found[3], _code(secret, ends_at, key)):
        return None
    return key if now < ends_at <= now + MAX_LIFETIME_SECONDS else None


def _code(secret: SubjectSecret, ends_at: int, key: str) -> str:
    return hmac.digest(secret.proving, f"{ends_at}.{key}".encode(), hashlib.sha256).hex()
