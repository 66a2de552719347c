"""Subject keys tell nobody whose they are, and proofs of them cannot be made without the secret."""

import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from subtext_sidecar.contract import record, subject
from subtext_sidecar.contract.facts import RequestFacts
from subtext_sidecar.local.block import decode_block
from tests.support import ROOT
from tests.support.records import block_frames, encode_header, frames, header_for, vector_bytes

PLAIN = b"0123456789abcdef0123456789abcdef"
SECRET = subject.tenant_secret(PLAIN, "acme")
KEY = subject.subject_key(SECRET, "ada")
NOW = 1_800_000_000.5
ENDS_AT = 1_800_000_060


def by_hand(label: str, message: str) -> str:
    """Return what a gateway works out by its own means."""
    key = hmac.new(PLAIN, f"{label}\nacme".encode(), hashlib.sha256).digest()
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def test_a_subject_key_is_what_a_gateway_works_out() -> None:
    assert KEY == by_hand("subtext-subject-key/1", "ada")[:32] == "aaddd6278c0f5b07d11df10d63ff7082"
    assert subject.is_subject_key(KEY)


def test_a_proof_is_what_a_gateway_works_out() -> None:
    code = by_hand("subtext-subject-proof/1", f"{ENDS_AT}.{KEY}")

    assert subject.make_proof(SECRET, KEY, ENDS_AT) == f"{ENDS_AT}.{KEY}.{code}"


def test_a_person_has_one_key_with_each_secret_and_tenant() -> None:
    others = (
        subject.tenant_secret(PLAIN, "bolt"),
        subject.tenant_secret(PLAIN[::-1], "acme"),
    )
    keys = {subject.subject_key(secret, one) for secret in (SECRET, *others) for one in ("ada", "Ada", "é")}

    assert len(keys) == 9
    assert subject.tenant_secret(PLAIN + b"\r\n", "acme") == SECRET


@pytest.mark.parametrize("subject_id", ["", "x" * 257, "é" * 129, "\ud800"])
def test_no_person_is_known_by_this(subject_id: str) -> None:
    with pytest.raises(ValueError, match="subject id"):
        subject.subject_key(SECRET, subject_id)


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes: it needs 32"):
        subject.tenant_secret(PLAIN[:31] + b"\n", "acme")


def test_a_proof_proves_its_key_until_it_ends() -> None:
    proof = subject.make_proof(SECRET, KEY, ENDS_AT)

    assert subject.looks_proved(proof)
    assert subject.read_proof(SECRET, proof, NOW) == KEY
    assert subject.read_proof(SECRET, proof, ENDS_AT) is None
    assert subject.read_proof(SECRET, proof, ENDS_AT - 3600) == KEY
    assert subject.read_proof(SECRET, proof, ENDS_AT - 3601) is None


def test_a_proof_is_no_one_elses() -> None:
    proof = subject.make_proof(SECRET, KEY, ENDS_AT)
    other = subject.subject_key(SECRET, "bob")
    forged = (
        proof.replace(KEY, other),
        proof.replace(str(ENDS_AT), str(ENDS_AT + 1)),
        proof[:-1] + ("0" if proof[-1] != "0" else "1"),
        subject.make_proof(subject.tenant_secret(PLAIN, "bolt"), KEY, ENDS_AT),
        f"{proof}\n",
        f" {proof}",
        proof.upper(),
        proof.replace("1", "\u0661"),
        "x" * 1_000_000,
        "",
        KEY,
    )

    assert [subject.read_proof(SECRET, one, NOW) for one in forged] == [None] * len(forged)


@pytest.mark.parametrize("text", ["", "a" * 31, "A" * 32, "a" * 33, f"{'a' * 32}\n", "g" * 32, None, 5])
def test_this_is_no_subject_key(text: object) -> None:
    assert not subject.is_subject_key(text)


def without_subject(message: bytes) -> bytes:
    """Return the message as it was sent before there were subjects."""
    fields = msgspec.msgpack.decode(message)
    for holder in fields.get("requests", [fields]):
        assert "subject" in holder
        del holder["subject"]
    return msgspec.msgpack.encode(fields)


def before() -> type[msgspec.Struct]:
    """Return the facts of a request as a reader of before subjects knows them."""
    fields = [
        (field.encode_name, field.type)
        if field.required
        else (field.encode_name, field.type, msgspec.field(default=field.default))
        for field in msgspec.structs.fields(RequestFacts)
        if field.encode_name != "subject"
    ]
    return msgspec.defstruct("Before", fields, kw_only=True)


def test_blocks_and_records_carry_the_subject() -> None:
    block = decode_block(*block_frames(rows=3, subject=[KEY, None]))

    assert record.decode(*frames(subject=KEY)).header.request.subject == KEY
    assert [request.subject for request in block.header.requests] == [KEY, None]


def test_what_writers_of_before_send_names_nobody() -> None:
    header, vector = frames()
    block, vectors = block_frames()

    assert record.decode(without_subject(header), vector).header == header_for(vector)
    assert decode_block(without_subject(block), vectors) == decode_block(block, vectors)


def test_readers_of_before_read_all_but_the_subject() -> None:
    vector = vector_bytes()
    encoded = encode_header(header_for(vector, subject=KEY, request_id="r"))
    block, _ = block_frames(rows=3, subject=[KEY, None])

    read = msgspec.msgpack.decode(encoded, type=before())
    of_block = [msgspec.convert(one, before()) for one in msgspec.msgpack.decode(block)["requests"]]

    assert msgspec.to_builtins(read)["request_id"] == "r"
    assert not hasattr(read, "subject")
    assert len(of_block) == 2


def test_the_subject_is_no_part_of_a_samples_identity() -> None:
    vector = vector_bytes()
    named, unnamed = (header_for(vector, capture_id="a" * 32, subject=one) for one in (KEY, None))

    assert record.sample_id(named) == record.sample_id(unnamed)


@pytest.mark.parametrize("said", ["", "ada", KEY.upper(), f"{KEY}\n", KEY[:-1], 5, [KEY]])
def test_what_is_no_subject_key_is_refused_everywhere(said: Any) -> None:
    readers = (
        lambda: record.decode(*frames(subject=said)),
        lambda: decode_block(*block_frames(rows=2, subject=[said])),
    )
    for read in readers:
        with pytest.raises(record.RecordError) as caught:
            read()
        assert caught.value.reason == "bad_field"


def test_the_gateway_of_the_documentation_names_whom_it_says_whatever_the_client_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = (ROOT / "docs/operations.md").read_text()
    [program] = [
        part for part in re.findall(r"```python\n(.*?)```", documented, re.DOTALL) if "def name_" in part
    ]
    (tmp_path / "subject_secret").write_bytes(PLAIN + b"\n")
    monkeypatch.chdir(tmp_path)
    gateway: dict[str, Any] = {}
    exec(program, gateway)  # noqa: S102  # what operators copy
    body = b'{"vllm_xargs": {"a": 1}, "model": "m", "vllm_xargs": {"subtext_subject": "bob", "b": 2}}'

    sent = json.loads(gateway["name_subject"](body, "ada"))
    bare = json.loads(gateway["name_subject"](b'{"vllm_xargs": null, "messages": []}', "ada"))

    assert sent["vllm_xargs"].keys() == {"b", subject.ARGUMENT}
    assert subject.read_proof(SECRET, sent["vllm_xargs"][subject.ARGUMENT], time.time()) == KEY
    assert bare["vllm_xargs"].keys() == {subject.ARGUMENT}
