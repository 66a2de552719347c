"""What opens a sealed vector, and what does not."""

import datetime as dt
import os
import uuid
from pathlib import Path

import pytest

from service.store.vectors import sealing
from service.store.vectors.sealing import DataKey, Facts, Sealed, SealingError, WrappingKey

VECTOR = bytes(range(64))
FACTS = Facts(uuid.uuid4(), uuid.uuid4(), dt.datetime(2026, 11, 28, 9, tzinfo=dt.UTC), "float32", 16)
WRAPPING = WrappingKey(b"w" * 32)


def test_a_sealed_vector_opens_to_the_same_bytes_and_does_not_show_them() -> None:
    key = DataKey.generate()

    sealed = key.seal(VECTOR, FACTS)

    assert key.open(sealed, FACTS) == VECTOR
    assert VECTOR[:8] not in sealed.ciphertext
    assert key.seal(VECTOR, FACTS) != sealed


def test_times_of_any_zone_are_one_time() -> None:
    key = DataKey.generate()
    elsewhere = FACTS.captured_at.astimezone(dt.timezone(dt.timedelta(hours=9)))

    assert key.open(key.seal(VECTOR, FACTS), FACTS._replace(captured_at=elsewhere)) == VECTOR


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": uuid.uuid4()},
        {"sample_id": uuid.uuid4()},
        {"captured_at": FACTS.captured_at + dt.timedelta(microseconds=1)},
        {"dtype": "float16"},
        {"d_model": 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_vector_opens_for_nothing_else_than_it_was_sealed_for(change: dict[str, object]) -> None:
    key = DataKey.generate()
    sealed = key.seal(VECTOR, FACTS)
    others = Facts(**(FACTS._asdict() | change))

    with pytest.raises(SealingError, match="does not open"):
        key.open(sealed, others)


def test_no_bit_of_a_sealed_vector_can_change() -> None:
    key = DataKey.generate()
    nonce, ciphertext = key.seal(VECTOR, FACTS)
    flipped = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]

    for damaged in (Sealed(nonce, flipped), Sealed(bytes(12), ciphertext), Sealed(nonce, b"")):
        with pytest.raises(SealingError, match="does not open"):
            key.open(damaged, FACTS)
    with pytest.raises(SealingError, match="does not open"):
        DataKey(key.id, b"o" * 32).open(Sealed(nonce, ciphertext), FACTS)


def test_a_wrapped_key_is_of_one_tenant_one_id_and_one_file() -> None:
    key, tenant = DataKey.generate(), uuid.uuid4()
    wrapped = WRAPPING.wrap(key, tenant)

    assert WRAPPING.unwrap(wrapped, key.id, tenant) == key
    assert key.secret not in wrapped
    for wrapping, key_id, whose in (
        (WrappingKey(b"o" * 32), key.id, tenant),
        (WRAPPING, uuid.uuid4(), tenant),
        (WRAPPING, key.id, uuid.uuid4()),
    ):
        with pytest.raises(SealingError, match="does not unwrap"):
            wrapping.unwrap(wrapped, key_id, whose)


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "vectors.key"

    made = sealing.generate_file(file)

    assert file.stat().st_mode & 0o777 == 0o600
    sealing.check_private(file, named="THE_FILE")
    assert sealing.parse(file.read_text(), named="THE_FILE") == made
    assert made.secret.hex()[:16] not in made.id
    with pytest.raises(FileExistsError):
        sealing.generate_file(file)
    os.chmod(file, 0o640)  # noqa: PTH101  # as an operator would
    with pytest.raises(SealingError, match=r"THE_FILE is .*chmod 600"):
        sealing.check_private(file, named="THE_FILE")


@pytest.mark.parametrize("text", ["", "secret", "ab" * 31, "zz" * 32])
def test_a_file_without_a_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SealingError, match="THE_FILE holds no key") as caught:
        sealing.parse(text, named="THE_FILE")

    assert not text or text not in str(caught.value)
