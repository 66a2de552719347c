"""Timestamps of checkpoints by an authority (RFC 3161): that a note was there at a time. Pure.

The authority signs the note's hash and the time by its own clock. It is shown nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)


class TimestampError(ValueError):
    """What an authority answered, or its certificate, is not what it should be; the message says how."""


class Question(NamedTuple):
    """What an authority is asked."""

    encoded: bytes
    """A TimeStampReq in DER."""
    nonce: int


def ask(note: str) -> Question:
    """Return the request for a timestamp of a note, with the certificate in the answer."""
    made = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA256).build()
    if made.nonce is None:
        raise TimestampError("the request has no nonce")
    return Question(made.as_bytes(), made.nonce)


@dataclass(frozen=True, slots=True)
class Authority:
    """Whom to believe: the certificates under which an authority's own has to be."""

    roots: Sequence[Certificate]

    def open(self, response: bytes, note: str, nonce: int | None = None) -> datetime:
        """Return when the authority says that it has seen a note, in UTC.

        ``response`` is a TimeStampResp in DER. With ``nonce`` it has to be the answer to that request. The
        certificates have to be valid at the time that it says, not now. Raises TimestampError.
        """
        try:
            answered = decode_timestamp_response(response)
            builder = VerifierBuilder(roots=list(self.roots), nonce=nonce)
            builder.build().verify_message(answered, note.encode())
        except (VerificationError, ValueError) as error:
            raise TimestampError(f"the timestamp does not hold: {error}") from error
        return answered.tst_info.gen_time


def read_authority(pem: bytes) -> Authority:
    """Return the authority of these root certificates; TimestampError when there are none."""
    try:
        return Authority(tuple(load_pem_x509_certificates(pem)))
    except ValueError as error:
        raise TimestampError(f"the authority's certificates are no PEM: {error}") from error
