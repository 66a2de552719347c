"""What an ID token says, once it is known to be the issuer's, for us and for this login. Pure."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519"),
)
"""By public keys alone: with HS256 whoever knows the client's secret could sign, with none anybody."""
_LEEWAY_SECONDS: Final = 60
_MAX_PERSON: Final = 255  # OpenID Connect Core, section 2
_MAX_LENGTH: Final = 100_000


class TokenError(Exception):
    """The token is not what it should be; the message says what, and holds nothing of it."""


class UnknownKeyError(TokenError):
    """It names a key that the issuer did not show us, as after a change of keys."""


class Wanted(NamedTuple):
    """What the token has to say."""

    issuer: str
    client_id: str
    nonce: str


def read_claims(token: object, keys: KeySet, wanted: Wanted, now: dt.datetime) -> Mapping[str, Any]:
    """Return the claims of an ID token (OpenID Connect Core, 3.1.3.7); TokenError names what is wrong."""
    if not isinstance(token, str) or len(token) > _MAX_LENGTH:
        raise TokenError("the issuer sent no ID token: the scope openid has to be among those asked for")
    try:
        decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
    except InvalidKeyIdError as error:
        raise UnknownKeyError("the ID token is signed with a key that the issuer does not show") from error
    except (JoseError, ValueError) as error:
        raise TokenError(f"the ID token does not hold: {type(error).__name__}") from error
    claims = CodeIDToken(
        decoded.claims,
        decoded.header,
        options={
            "iss": {"essential": True, "value": wanted.issuer},
            "aud": {"essential": True, "value": wanted.client_id},
        },
        params={"nonce": wanted.nonce, "client_id": wanted.client_id},
    )
    try:
        claims.validate(now=int(now.timestamp()), leeway=_LEEWAY_SECONDS)
    except (JoseError, ValueError, TypeError) as error:
        claim = getattr(error, "claim", None)
        what = f" ({claim})" if isinstance(claim, str) else ""
        raise TokenError(f"the ID token does not hold: {type(error).__name__}{what}") from error
    if not _is_person(claims["sub"]):
        raise TokenError("the ID token's sub is not 1 to 255 printable ASCII characters")
    return dict(claims)


def _is_person(sub: object) -> bool:
    return isinstance(sub, str) and 0 < len(sub) <= _MAX_PERSON and sub.isascii() and sub.isprintable()
