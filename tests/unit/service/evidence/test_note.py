"""Signed notes against the reference of Go's `sumdb/note`, and what is none."""

import pytest

from service.evidence import note

# golang.org/x/mod/sumdb/note: its example.
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
SIGNED = (
    f"{TEXT}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
CHECKPOINT = "example.org/log\n3\nrra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=\n"


def test_signs_as_the_reference_does() -> None:
    signer = note.read_signer(PRIVATE)

    assert signer.sign(TEXT) == SIGNED
    assert (signer.encode(), signer.verifier.encode()) == (PRIVATE, PUBLIC)


def test_opens_what_the_reference_signed() -> None:
    assert note.read_verifier(PUBLIC).open(SIGNED) == TEXT


def test_opens_a_note_that_others_have_signed_too() -> None:
    other = note.generate("example.org/witness")
    both = SIGNED + other.sign(TEXT).rpartition("\n\n")[2]

    assert note.read_verifier(PUBLIC).open(both) == TEXT
    assert other.verifier.open(both) == TEXT


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (SIGNED.replace("cryptography", "steganography"), "does not fit"),
        (SIGNED.replace("PeterNeumann", "PeterNeuman"), "no signature by"),
        (SIGNED.replace("x08go/Z", "x08go/Y"), "does not fit"),
        (SIGNED.replace("x08go", "y08go"), "no signature by"),
        (SIGNED.removesuffix("\n"), "no signatures"),
        (SIGNED + "more\n", "that is none"),
        (SIGNED.replace("AM=\n", "AN=\n"), "that is none"),
        (TEXT, "no signatures"),
    ],
)
def test_a_changed_note_does_not_open(changed: str, says: str) -> None:
    with pytest.raises(note.NoteError, match=says):
        note.read_verifier(PUBLIC).open(changed)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "no private key"),
        (PUBLIC, "no private key"),
        (PRIVATE.replace("c74f20a3", "c74f20a4"), "does not fit"),
        (PRIVATE.replace("AYEK", "AoEK"), "not of Ed25519"),
        (PRIVATE[:-4], "not of Ed25519"),
    ],
)
def test_a_wrong_private_key_is_refused_and_not_repeated(key: str, says: str) -> None:
    with pytest.raises(note.NoteError, match=says) as refused:
        note.read_signer(key)

    assert "EKFALVFGyNhPJEMzD1QIDr" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("PeterNeumann", "no public key"),
        (PUBLIC.replace("c74f", "c74e"), "does not fit"),
        (PUBLIC[:-4], "not of"),
    ],
)
def test_a_wrong_public_key_is_refused(key: str, says: str) -> None:
    with pytest.raises(note.NoteError, match=says):
        note.read_verifier(key)


def test_a_key_has_a_name_that_a_signature_can_hold() -> None:
    with pytest.raises(note.NoteError, match="no name"):
        note.generate("two words")
    with pytest.raises(note.NoteError, match="line feed"):
        note.generate("one").sign("text")


def test_a_checkpoint_is_written_as_it_is_read() -> None:
    read = note.read_checkpoint(CHECKPOINT)

    assert (read.origin, read.size, read.text()) == ("example.org/log", 3, CHECKPOINT)
    assert note.read_checkpoint(f"{CHECKPOINT}an extension\n") == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/log\n3\n",
        CHECKPOINT.replace("\n3\n", "\n03\n"),
        CHECKPOINT.replace("\n3\n", "\n-3\n"),
        CHECKPOINT.replace("=", ""),
        CHECKPOINT.replace("rra8", ""),
        CHECKPOINT.removeprefix("example.org/log"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(note.NoteError):
        note.read_checkpoint(text)
