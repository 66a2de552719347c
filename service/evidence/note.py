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

ED25519: Final = b"\x01"
"""The signature type of C2SP for a note's own signature."""
KEY_HASH_BYTES: Final = 4
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
        return key_hash(self.name, self.public_key, ED25519)

    def encode(self) -> str:
        """Return the key as C2SP writes it: name, hash and key."""
        return write_public(self.name, self.public_key, ED25519)

    def open(self, note: str) -> str:
        """Return the text of a note that this key has signed; NoteError when it has not."""
        text, signatures = split(note)
        for name, signature in signatures:
            if name != self.name or signature[:KEY_HASH_BYTES] != self.key_hash:
                continue
            try:
                self.public_key.verify(signature[KEY_HASH_BYTES:], text.encode())
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
        return write_private(self.name, self.private_key, ED25519)

    def sign(self, text: str) -> str:
        """Return the note of this text, which ends with a line feed; always the same for the same text."""
        if not text.endswith("\n"):
            raise NoteError("a note's text ends with a line feed")
        signature = self.verifier.key_hash + self.private_key.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(signature).decode()}\n"


def generate(name: str) -> Signer:
    """Return a new key; NoteError unless the name has neither a space nor a plus sign."""
    return Signer(*new_key(name))


def new_key(name: str) -> tuple[str, Ed25519PrivateKey]:
    """Return a key with its name; NoteError for a name with spaces or plus signs."""
    if not _KEY_NAME.match(name):
        raise NoteError(f"{name!r} is no name for a key: write one without spaces and plus signs")
    return name, Ed25519PrivateKey.generate()


def read_signer(encoded: str) -> Signer:
    """Return the key that `Signer.encode` wrote. No message repeats any of it."""
    return Signer(*read_private(encoded, ED25519))


def read_verifier(encoded: str) -> Verifier:
    """Return the key that `Verifier.encode` wrote."""
    return Verifier(*read_public(encoded, ED25519))


def write_private(name: str, key: Ed25519PrivateKey, kind: bytes) -> str:
    """Return a private key of this signature type as Go's `sumdb/note` writes it."""
    body = base64.b64encode(kind + key.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{key_hash(name, key.public_key(), kind).hex()}+{body}"


def write_public(name: str, key: Ed25519PublicKey, kind: bytes) -> str:
    """Return a public key of this signature type as C2SP writes it."""
    body = base64.b64encode(kind + key.public_bytes_raw()).decode()
    return f"{name}+{key_hash(name, key, kind).hex()}+{body}"


def read_private(encoded: str, kind: bytes) -> tuple[str, Ed25519PrivateKey]:
    """Return what `write_private` wrote. No message repeats any of it."""
    parts = encoded.strip().split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:  # noqa: PLR2004  # what is joined
        raise NoteError("it holds no private key of a signed note: make one by `subtext log keygen`")
    key = Ed25519PrivateKey.from_private_bytes(_key_bytes(parts[4], "private key", kind))
    if key_hash(parts[2], key.public_key(), kind).hex() != parts[3]:
        raise NoteError("the private key does not fit its name and hash: it was cut or changed")
    return parts[2], key


def read_public(encoded: str, kind: bytes) -> tuple[str, Ed25519PublicKey]:
    """Return what `write_public` wrote."""
    parts = encoded.strip().split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004  # what is joined
        raise NoteError("it holds no public key of a signed note: it looks like NAME+HASH+KEY")
    key = Ed25519PublicKey.from_public_bytes(_key_bytes(parts[2], "public key", kind))
    if key_hash(parts[0], key, kind).hex() != parts[1]:
        raise NoteError("the public key does not fit its name and hash: it was cut or changed")
    return parts[0], key


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


def split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return a note's text and its signatures by name, each with its key's hash; NoteError for no note."""
    text, found, tail = note.rpartition("\n\n")
    if not found or not tail.endswith("\n"):
        raise NoteError("the note has no signatures")
    signatures = []
    for line in tail.removesuffix("\n").split("\n"):
        match = _SIGNATURE_LINE.match(line)
        signature = None if match is None else _decoded(match["signature"])
        if match is None or signature is None or len(signature) <= KEY_HASH_BYTES:
            raise NoteError("the note has a line among its signatures that is none")
        signatures.append((match["name"], signature))
    return text + "\n", signatures


def key_hash(name: str, key: Ed25519PublicKey, kind: bytes) -> bytes:
    """Return the four bytes by which a signature of this type names its key."""
    return sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:KEY_HASH_BYTES]


def _key_bytes(encoded: str, what: str, kind: bytes) -> bytes:
    key = _decoded(encoded)
    if key is None or key[:1] != kind or len(key) != 1 + _SEED_BYTES:
        raise NoteError(f"the {what} is not of Ed25519, or for another kind of signature")
    return key[1:]


def _decoded(encoded: str) -> bytes | None:
    try:
        found = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Base64 with stray bits in its last letter would be another writing of the same bytes.
    return found if base64.b64encode(found).decode() == encoded else None
