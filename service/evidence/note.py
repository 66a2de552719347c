"""Signed notes and checkpoints in the form of C2SP (signed-note, tlog-checkpoint), with Ed25519. Pure.

A note is text, an empty line, and a line a signature. A checkpoint's text names the log, its size and root.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.evidence.merkle import HASH_BYTES

_ED25519: Final = b"\x01"  # the signature type of C2SP
_KEY_HASH_BYTES: Final = 4
_SEED_BYTES: Final = 32
_SIGNATURE_LINE: Final = re.compile(r"^— (?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/]+=*)$")
_KEY_NAME: Final = re.compile(r"^[^\s+]+$")
_SIZE: Final = re.compile(r"^(0|[1-9][0-9]{0,18})$")


class NoteError(ValueError):
    """A key, note or checkpoint that is not what it should be; the message says how."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name that it signs under."""

    name: str
    public_key: Ed25519PublicKey

    @property
    def key_hash(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return _key_hash(self.name, self.public_key.public_bytes_raw())

    def encode(self) -> str:
        """Return the key as C2SP writes it: name, hash and key."""
        key = base64.b64encode(_ED25519 + self.public_key.public_bytes_raw()).decode()
        return f"{self.name}+{self.key_hash.hex()}+{key}"

    def open(self, note: str) -> str:
        """Return the text of a note that this key has signed; NoteError when it has not."""
        text, signatures = _split(note)
        for name, signature in signatures:
            if name != self.name or signature[:_KEY_HASH_BYTES] != self.key_hash:
                continue
            try:
                self.public_key.verify(signature[_KEY_HASH_BYTES:], text.encode())
            except InvalidSignature:
                raise NoteError(f"the signature of {self.name} does not fit the note's text") from None
            return text
        raise NoteError(f"the note has no signature by {self.name} with key {self.key_hash.hex()}")


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with the name that it signs under."""

    name: str
    private_key: Ed25519PrivateKey

    @property
    def verifier(self) -> Verifier:
        """Its public half."""
        return Verifier(self.name, self.private_key.public_key())

    def encode(self) -> str:
        """Return the key as Go's `sumdb/note` writes it. It is the secret itself."""
        key = base64.b64encode(_ED25519 + self.private_key.private_bytes_raw()).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_hash.hex()}+{key}"

    def sign(self, text: str) -> str:
        """Return the note of this text, which ends with a line feed; always the same for the same text."""
        if not text.endswith("\n"):
            raise NoteError("a note's text ends with a line feed")
        signature = self.verifier.key_hash + self.private_key.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(signature).decode()}\n"


def generate(name: str) -> Signer:
    """Return a new key; NoteError unless the name has neither a space nor a plus sign."""
    if not _KEY_NAME.match(name):
        raise NoteError(f"{name!r} is no name for a key: write one without spaces and plus signs")
    return Signer(name, Ed25519PrivateKey.generate())


def read_signer(encoded: str) -> Signer:
    """Return the key that `Signer.encode` wrote. No message repeats any of it."""
    parts = encoded.strip().split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:  # noqa: PLR2004  # what `encode` joins
        raise NoteError("it holds no private key of a signed note: make one by `subtext log keygen`")
    seed = _key_bytes(parts[4], "private key")
    signer = Signer(parts[2], Ed25519PrivateKey.from_private_bytes(seed))
    if signer.verifier.key_hash.hex() != parts[3]:
        raise NoteError("the private key does not fit its name and hash: it was cut or changed")
    return signer


def read_verifier(encoded: str) -> Verifier:
    """Return the key that `Verifier.encode` wrote."""
    parts = encoded.strip().split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004  # what `encode` joins
        raise NoteError("it holds no public key of a signed note: it looks like NAME+HASH+KEY")
    verifier = Verifier(parts[0], Ed25519PublicKey.from_public_bytes(_key_bytes(parts[2], "public key")))
    if verifier.key_hash.hex() != parts[1]:
        raise NoteError("the public key does not fit its name and hash: it was cut or changed")
    return verifier


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root of a log at one moment."""

    origin: str
    """Which log."""
    size: int
    root: bytes

    def text(self) -> str:
        """Return it as the text of a note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def read_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that a note's text holds; lines after the third are nobody's business."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not _SIZE.match(lines[1]):  # noqa: PLR2004  # three and an end
        raise NoteError("the note is no checkpoint: it has not the lines origin, size and root")
    root = _decoded(lines[2])
    if root is None or len(root) != HASH_BYTES:
        raise NoteError("the checkpoint's root is no hash of 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, found, tail = note.rpartition("\n\n")
    if not found or not tail.endswith("\n"):
        raise NoteError("the note has no signatures")
    signatures = []
    for line in tail.removesuffix("\n").split("\n"):
        match = _SIGNATURE_LINE.match(line)
        signature = None if match is None else _decoded(match["signature"])
        if match is None or signature is None or len(signature) <= _KEY_HASH_BYTES:
            raise NoteError("the note has a line among its signatures that is none")
        signatures.append((match["name"], signature))
    return text + "\n", signatures


def _key_hash(name: str, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_KEY_HASH_BYTES]


def _key_bytes(encoded: str, what: str) -> bytes:
    key = _decoded(encoded)
    if key is None or key[:1] != _ED25519 or len(key) != 1 + _SEED_BYTES:
        raise NoteError(f"the {what} is not of Ed25519")
    return key[1:]


def _decoded(encoded: str) -> bytes | None:
    try:
        found = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Base64 with stray bits in its last letter would be another writing of the same bytes.
    return found if base64.b64encode(found).decode() == encoded else None
