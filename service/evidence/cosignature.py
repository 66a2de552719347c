"""Cosignatures of checkpoints by a witness, in the form of C2SP (tlog-cosignature, Ed25519). Pure.

A witness says that it has seen a checkpoint at a time, and that it is no other history than all it has seen
of that log before.
"""

import base64
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.evidence import note
from service.evidence.note import KEY_HASH_BYTES, NoteError

_KIND: Final = b"\x04"  # the signature type of C2SP for a cosignature with a time
_TIME_BYTES: Final = 8


class Cosigned(NamedTuple):
    """A note's text, and when its witness says that it has seen it."""

    text: str
    at: int
    """Unix time, in seconds."""


@dataclass(frozen=True, slots=True)
class WitnessVerifier:
    """A witness's public key with the name that it signs under."""

    name: str
    public_key: Ed25519PublicKey

    def encode(self) -> str:
        """Return the key as C2SP writes it: name, hash and key."""
        return note.write_public(self.name, self.public_key, _KIND)

    def open(self, written: str) -> Cosigned:
        """Return what this witness has cosigned of a note; NoteError when it has not."""
        text, signatures = note.split(written)
        own = note.key_hash(self.name, self.public_key, _KIND)
        for name, signature in signatures:
            if name != self.name or signature[:KEY_HASH_BYTES] != own:
                continue
            at = int.from_bytes(signature[KEY_HASH_BYTES : KEY_HASH_BYTES + _TIME_BYTES])
            try:
                self.public_key.verify(signature[KEY_HASH_BYTES + _TIME_BYTES :], _message(text, at))
            except InvalidSignature:
                raise NoteError(f"the cosignature of {self.name} does not fit the note's text") from None
            return Cosigned(text, at)
        raise NoteError(f"the note has no cosignature by {self.name} with key {own.hex()}")


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's private key with the name that it signs under."""

    name: str
    private_key: Ed25519PrivateKey

    @property
    def verifier(self) -> WitnessVerifier:
        """Its public half."""
        return WitnessVerifier(self.name, self.private_key.public_key())

    def encode(self) -> str:
        """Return the key as a log's key is written. It is the secret itself."""
        return note.write_private(self.name, self.private_key, _KIND)

    def cosign(self, written: str, at: int) -> str:
        """Return the note with a cosignature of this time (Unix, in seconds) behind its signatures."""
        text, _ = note.split(written)
        own = note.key_hash(self.name, self.private_key.public_key(), _KIND)
        signature = own + at.to_bytes(_TIME_BYTES) + self.private_key.sign(_message(text, at))
        return f"{written}— {self.name} {base64.b64encode(signature).decode()}\n"


def generate(name: str) -> Cosigner:
    """Return a new key; NoteError unless the name has neither a space nor a plus sign."""
    return Cosigner(*note.new_key(name))


def read_cosigner(encoded: str) -> Cosigner:
    """Return the key that `Cosigner.encode` wrote. No message repeats any of it."""
    return Cosigner(*note.read_private(encoded, _KIND))


def read_witness(encoded: str) -> WitnessVerifier:
    """Return the key that `WitnessVerifier.encode` wrote."""
    return WitnessVerifier(*note.read_public(encoded, _KIND))


def _message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()
