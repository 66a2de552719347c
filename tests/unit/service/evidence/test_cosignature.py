"""Cosignatures as C2SP writes them, worked out again by hand, and what is none."""

import base64
from hashlib import sha256

import pytest

from service.evidence import cosignature, note
from service.evidence.cosignature import read_cosigner, read_witness

TEXT = "example.com/log\n3\nrra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=\n"
LOG = note.generate("example.com/log")
WITNESS = cosignature.generate("witness.example.com/w1")
AT = 1_679_315_147


def test_a_cosignature_is_what_the_specification_says() -> None:
    written = WITNESS.cosign(LOG.sign(TEXT), AT)

    name, encoded = written.splitlines()[-1].removeprefix("— ").split(" ")
    signature = base64.b64decode(encoded)
    public = WITNESS.private_key.public_key()
    assert name == WITNESS.name
    assert signature[:4] == sha256(name.encode() + b"\n\x04" + public.public_bytes_raw()).digest()[:4]
    assert int.from_bytes(signature[4:12], "big") == AT
    public.verify(signature[12:], f"cosignature/v1\ntime {AT}\n{TEXT}".encode())


def test_both_signatures_open_the_note() -> None:
    written = WITNESS.cosign(LOG.sign(TEXT), AT)

    assert LOG.verifier.open(written) == TEXT
    assert WITNESS.verifier.open(written) == (TEXT, AT)


def test_keys_are_read_as_they_were_written_and_are_no_keys_of_a_log() -> None:
    assert read_cosigner(WITNESS.encode()).encode() == WITNESS.encode()
    assert read_witness(WITNESS.verifier.encode()).encode() == WITNESS.verifier.encode()
    with pytest.raises(note.NoteError, match="another kind of signature"):
        note.read_verifier(WITNESS.verifier.encode())
    with pytest.raises(note.NoteError, match="another kind of signature"):
        read_cosigner(LOG.encode())


def test_what_is_not_cosigned_does_not_open() -> None:
    written = WITNESS.cosign(LOG.sign(TEXT), AT)
    other = cosignature.generate(WITNESS.name)

    with pytest.raises(note.NoteError, match="no cosignature by"):
        WITNESS.verifier.open(LOG.sign(TEXT))
    with pytest.raises(note.NoteError, match="no cosignature by"):
        other.verifier.open(written)
    with pytest.raises(note.NoteError, match="does not fit"):
        WITNESS.verifier.open(written.replace("\n3\n", "\n4\n"))
