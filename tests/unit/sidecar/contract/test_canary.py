import hashlib

import pytest

from subtext_sidecar.contract.canary import (
    MAX_LIFETIME_SECONDS,
    Canary,
    canary_key,
    make_token,
    prompt_digest,
    read_token,
)
from tests.support.secret import SECRET

KEY = canary_key(SECRET)
NOW = 1_800_000_000.0
CANARY = Canary("0f" * 16, int(NOW) + 60, prompt_digest([1, 2, 3]))
TOKEN = make_token(KEY, CANARY, "m")


def test_a_token_tells_what_it_was_made_of() -> None:
    assert read_token(KEY, TOKEN, "m", NOW) == CANARY


def test_the_code_is_that_of_rfc_2104_with_a_key_of_its_own() -> None:
    # openssl dgst -sha256 -hmac SECRET over the label, and -mac HMAC -macopt hexkey:KEY over the rest.
    assert KEY.hex() == "1cfdd6cb78bf9237f7eabbc632eec6989f82a62ba96e090636e3cf76357e4b61"
    assert TOKEN.rpartition(".")[2] == "43a7d336f6a4cca77b8dcbe9e7db8f67d18c7cf6de14f5422c5498d1ce1dac0b"


def test_a_digest_tells_prompts_apart_that_read_alike_when_joined() -> None:
    assert prompt_digest([1, 2, 3]) == hashlib.sha256(b"1,2,3").hexdigest()
    assert len({prompt_digest(one) for one in ([1, 23], [12, 3], [123], [], [0])}) == 5


def test_the_line_end_behind_the_secret_does_not_count() -> None:
    assert canary_key(SECRET + b"\r\n") == KEY
    assert canary_key(SECRET[:-1]) != KEY


@pytest.mark.parametrize(
    "token",
    [
        None,
        7,
        ["x"],
        "",
        "on",
        TOKEN + "\n",
        TOKEN.upper(),
        f" {TOKEN}",
        "9" * 10_000_000,
        TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1"),
        TOKEN.replace(str(CANARY.ends_at), str(CANARY.ends_at + 1)),
        TOKEN.replace("0f", "0e", 1),
        TOKEN.replace("1", "\u0661", 1),
        TOKEN[:-64] + "\ud800" * 64,
        make_token(canary_key(b"another secret"), CANARY, "m"),
        make_token(KEY, CANARY, "another model"),
        make_token(KEY, CANARY._replace(nonce="short"), "m"),
        TOKEN.replace(CANARY.prompt, prompt_digest([1, 2, 4])),
    ],
)
def test_what_the_secret_did_not_make_is_no_token(token: object) -> None:
    assert read_token(KEY, token, "m", NOW) is None


@pytest.mark.parametrize(
    ("ends_at", "is_valid"),
    [
        (int(NOW), False),
        (int(NOW) + 1, True),
        (int(NOW) + MAX_LIFETIME_SECONDS, True),
        (int(NOW) + MAX_LIFETIME_SECONDS + 1, False),
    ],
)
def test_a_token_holds_for_minutes_only(ends_at: int, is_valid: bool) -> None:  # noqa: FBT001
    token = make_token(KEY, CANARY._replace(ends_at=ends_at), "m")

    assert (read_token(KEY, token, "m", NOW) is not None) == is_valid
