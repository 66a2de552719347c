"""Tokens by which the operator's canaries prove themselves. Pure, and of the standard library alone.

A canary is a control prompt that the operator sends through his own endpoint. Who can pass for one is
left out of every statistic, so a token is made with his secret: HMAC-SHA256 (RFC 2104) over when it ends,
a random nonce, a digest of the prompt's token ids and the model, under a key that is derived from the
secret by a label. Clients know none of it, and who takes a token off its way can send no other prompt
with it.

``vllm_xargs`` carries it under `ARGUMENT`: ``{Unix seconds of its end}.{nonce}.{digest}.{code}``, the last
three in hexadecimal.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, NewType

CanaryKey = NewType("CanaryKey", bytes)

ARGUMENT: Final = "subtext_canary"
MAX_LIFETIME_SECONDS: Final = 300
NONCE_BYTES: Final = 16
_LABEL: Final = b"subtext-canary-key/1"
_TOKEN: Final = re.compile(r"([1-9][0-9]{0,11})\.([0-9a-f]{32})\.([0-9a-f]{64})\.([0-9a-f]{64})", re.ASCII)
_MAX_CHARACTERS: Final = 12 + 1 + 32 + 1 + 64 + 1 + 64


class Canary(NamedTuple):
    """What a valid token says."""

    nonce: str
    ends_at: int  # Unix seconds
    prompt: str  # `prompt_digest` of what it was made for


def canary_key(secret: bytes) -> CanaryKey:
    """Return the key of the secret's canaries; the line end behind the secret does not count."""
    return CanaryKey(hmac.digest(secret.rstrip(b"\r\n"), _LABEL, hashlib.sha256))


def prompt_digest(token_ids: Iterable[int]) -> str:
    """Return the SHA-256 of the prompt as the model reads it, template included, in hexadecimal."""
    return hashlib.sha256(",".join(map(str, token_ids)).encode()).hexdigest()


def make_token(key: CanaryKey, canary: Canary, model: str) -> str:
    """Return the token of a canary for the model that the plugin's records name."""
    return f"{canary.ends_at}.{canary.nonce}.{canary.prompt}.{_code(key, canary, model)}"


def read_token(key: CanaryKey, token: object, model: str, now: float) -> Canary | None:
    """Return what the token says; None when it is no token, another's, over, or made to last too long.

    Whether the request's prompt is the one that it was made for is the caller's to compare.
    """
    if not isinstance(token, str) or len(token) > _MAX_CHARACTERS:
        return None
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    canary = Canary(found[2], int(found[1]), found[3])
    if not hmac.compare_digest(found[4], _code(key, canary, model)):
        return None
    return canary if now < canary.ends_at <= now + MAX_LIFETIME_SECONDS else None


def _code(key: CanaryKey, canary: Canary, model: str) -> str:
    # The model comes last, since it alone may hold anything.
    said = f"{canary.ends_at}.{canary.nonce}.{canary.prompt}.{model}".encode("utf-8", "surrogatepass")
    return hmac.new(key, said, hashlib.sha256).hexdigest()
