"""Sealing vectors: AES-256-GCM under a data key of each tenant, which the operator's key wraps.

NIST SP 800-38D bounds random nonces to 2^32 uses of a key: at 10 million vectors a day a key lasts a year.
"""

import hashlib
import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_OTHERS: Final = 0o077
_VERSION: Final = 1


class SealingError(ValueError):
    """A key or a sealed vector that cannot be used; the message names the fix."""


class Facts(NamedTuple):
    """What a sealed vector is bound to: with any other of these it does not open."""

    tenant_id: uuid.UUID
    sample_id: uuid.UUID
    captured_at: datetime
    dtype: str
    d_model: int


class Sealed(NamedTuple):
    """A ciphertext, with the nonce that it was made with."""

    nonce: bytes
    ciphertext: bytes


class DataKey(NamedTuple):
    """A tenant's key at work, in memory alone."""

    id: uuid.UUID
    secret: bytes

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls(uuid.uuid4(), AESGCM.generate_key(8 * _KEY_BYTES))

    def seal(self, vector: bytes, facts: Facts) -> Sealed:
        """Return the vector's bytes, sealed."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce, AESGCM(self.secret).encrypt(nonce, vector, associated(facts, self.id)))

    def open(self, sealed: Sealed, facts: Facts) -> bytes:
        """Return the vector's bytes; SealingError when anything is not as it was sealed."""
        try:
            return AESGCM(self.secret).decrypt(*sealed, associated(facts, self.id))
        except (InvalidTag, ValueError) as error:
            raise SealingError(
                f"the vector of sample {facts.sample_id} does not open: it, its tenant, time or shape is"
                " not what was sealed; somebody changed the row, restore it from a backup"
            ) from error


class WrappingKey(NamedTuple):
    """The operator's key, which wraps every tenant's."""

    secret: bytes

    @property
    def id(self) -> str:
        """What tells it apart from others, and nothing about it."""
        return hashlib.sha256(b"subtext vectors wrapping key" + self.secret).hexdigest()[:16]

    def wrap(self, key: DataKey, tenant_id: uuid.UUID) -> bytes:
        """Return the tenant's key, wrapped: a nonce and a ciphertext, which is bound to tenant and id."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, key.secret, _of_key(key.id, tenant_id))

    def unwrap(self, wrapped: bytes, key_id: uuid.UUID, tenant_id: uuid.UUID) -> DataKey:
        """Return the tenant's key; SealingError when this key did not wrap it, or for somebody else."""
        nonce, ciphertext = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            secret = AESGCM(self.secret).decrypt(nonce, ciphertext, _of_key(key_id, tenant_id))
        except (InvalidTag, ValueError) as error:
            raise SealingError(
                f"key {key_id} does not unwrap with the key file of {self.id}: it is damaged or another"
                " tenant's; restore the row of vector_keys"
            ) from error
        return DataKey(key_id, secret)


def associated(facts: Facts, key_id: uuid.UUID) -> bytes:
    """Return what is authenticated with a vector, so that no ciphertext passes for another's."""
    at = facts.captured_at.astimezone(UTC).isoformat(timespec="microseconds")
    named = facts._asdict() | {"captured_at": at, "key_id": key_id, "v": _VERSION}
    return json.dumps(named, sort_keys=True, separators=(",", ":"), default=str).encode()


def generate_file(file: Path) -> WrappingKey:
    """Write a new wrapping key to a file that only its owner reads; OSError when there is one already."""
    key = WrappingKey(os.urandom(_KEY_BYTES))
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(key.secret.hex() + "\n")
    return key


def parse(encoded: str, *, named: str) -> WrappingKey:
    """Return the key of a file's text; SealingError says that what is ``named`` holds none."""
    try:
        secret = bytes.fromhex(encoded.strip())
    except ValueError:
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise SealingError(
            f"{named} holds no key of {2 * _KEY_BYTES} hexadecimal digits; make one: subtext vectors keygen"
        )
    return WrappingKey(secret)


def check_private(file: Path, *, named: str) -> None:
    """Raise SealingError when others than the owner may read or write the file."""
    if file.stat().st_mode & _OTHERS:
        raise SealingError(f"{named} is {file}, which others may read: chmod 600")


def _of_key(key_id: uuid.UUID, tenant_id: uuid.UUID) -> bytes:
    return f"subtext vector key {_VERSION} {tenant_id} {key_id}".encode()
