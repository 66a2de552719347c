"""An ID token is taken when it is the issuer's, for us, for this login and in time, and otherwise not."""

import base64
import datetime as dt
import hmac
import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from service.sign_in.token import TokenError, UnknownKeyError, Wanted, read_claims

WANTED = Wanted("https://login.example", "subtext", "n-1")
NOW = dt.datetime.now(dt.UTC)
STARTED = int(time.time())
CLAIMS: dict[str, Any] = {
    "iss": "https://login.example",
    "aud": "subtext",
    "sub": "248289761001",
    "nonce": "n-1",
    "iat": STARTED,
    "exp": STARTED + 3600,
}
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
KEYS = KeySet([RSA, EC, ED])


def signed(claims: dict[str, Any], key: Key = EC, algorithm: str = "ES256") -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "Ed25519")]
)
def test_a_token_that_is_right_says_who_signed_in(key: Key, algorithm: str) -> None:
    claims = read_claims(signed(CLAIMS, key, algorithm), KEYS, WANTED, NOW)

    assert claims["sub"] == "248289761001"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://login.example/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": ["subtext", "another"]},  # without azp
        {"azp": "another"},
        {"nonce": "n-2"},
        {"nonce": None},
        {"exp": STARTED - 120},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"iat": STARTED + 86_400},
        {"nbf": STARTED + 86_400},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"sub": "\u202eanna"},
    ],
    ids="-".join,
)
def test_a_token_that_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    claims = {name: value for name, value in (CLAIMS | wrong).items() if value is not None}

    with pytest.raises(TokenError):
        read_claims(signed(claims), KEYS, WANTED, NOW)


def test_a_token_of_another_key_is_refused() -> None:
    foreign = ECKey.generate_key("P-256", {"kid": "ec"})
    unknown = ECKey.generate_key("P-256", {"kid": "new"})

    with pytest.raises(TokenError, match="BadSignature"):
        read_claims(signed(CLAIMS, foreign), KEYS, WANTED, NOW)
    with pytest.raises(UnknownKeyError):
        read_claims(signed(CLAIMS, unknown), KEYS, WANTED, NOW)


def test_nobody_signs_with_none_or_with_what_everybody_knows() -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    payload = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(CLAIMS)}"
    mac = hmac.digest(RSA.as_pem(private=False), payload.encode(), "sha256")
    by_public_key = f"{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    whole = signed(CLAIMS)
    header, claims, signature = whole.split(".")
    unsigned = [f"{part({'alg': name, 'kid': 'ec'})}.{claims}." for name in ("none", "None", "")]
    changed = f"{header}.{part(CLAIMS | {'sub': 'admin'})}.{signature}"

    for token in (by_public_key, *unsigned, changed, f"{header}.{claims}", "", None, 7, "x" * 200_000):
        with pytest.raises(TokenError):
            read_claims(token, KEYS, WANTED, NOW)
