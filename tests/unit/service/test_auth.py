import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from service import auth

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


@dataclass
class Key:
    secret_sha256: bytes
    scopes: Sequence[str] = ()
    expires_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None


def test_a_secret_has_the_prefix_and_256_random_bits() -> None:
    made = {auth.new_secret() for _ in range(100)}

    assert len(made) == 100
    assert {len(secret) for secret in made} == {len("subtext_") + 43}
    assert all(secret.startswith("subtext_") for secret in made)


def test_only_the_matching_living_key_passes() -> None:
    key = Key(auth.digest("s"))

    assert auth.living(key, "s", NOW) is key


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "unknown_key"),
        (Key(auth.digest("other")), "unknown_key"),
        (Key(auth.digest("s"), expires_at=NOW), "expired_key"),
        (Key(auth.digest("s"), revoked_at=NOW + dt.timedelta(days=1)), "revoked_key"),
    ],
)
def test_every_other_key_is_refused_by_code(key: Key | None, code: str) -> None:
    with pytest.raises(auth.AuthenticationError) as caught:
        auth.living(key, "s", NOW)

    assert caught.value.code == code


def test_scopes_stand_alone_and_admin_implies_all() -> None:
    auth.check_scopes(["flags:read"], ["flags:read"])
    auth.check_scopes(["admin"], [str(scope) for scope in auth.Scope])

    with pytest.raises(auth.ScopeError) as caught:
        auth.check_scopes(["explanations:read_text"], ["explanations:read", "flags:read"])

    assert caught.value.missing == ("explanations:read", "flags:read")
    assert not auth.allows(["explanations:read"], auth.Scope.EXPLANATIONS_READ_TEXT)


def test_an_auditor_reads_the_access_log_and_nobody_s_text() -> None:
    granted = auth.SCOPES[auth.Role.AUDITOR]

    assert auth.allows(granted, auth.Scope.AUDIT_READ)
    assert not auth.allows(granted, auth.Scope.EXPLANATIONS_READ_TEXT)
