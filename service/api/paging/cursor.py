"""Page cursors: opaque to clients, bound to the listing and filters that they were made for.

A cursor carries no rights, so it is checksummed against accidents and not signed against forgery:
a forged one reads nothing that its bearer could not list anyway, and no secret has to be shared
between replicas.
"""

import base64
import binascii
import datetime as dt
import hashlib
import struct
import uuid
from typing import Final, Literal

from service.store.read.page import Position

MAX_LENGTH: Final = 64  # characters; a real cursor has 55, or 56 with a rank
_VERSION: Final = 1
_BODY: Final = struct.Struct(">Bq16s8s")  # version, microseconds since 1970, id, binding
_VERSION_RANKED: Final = 2
_BODY_RANKED: Final = struct.Struct(">Bq16s8sB")  # and the rank that goes before the time
_CHECK_BYTES: Final = 8
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


class CursorError(ValueError):
    """A cursor that must not be followed."""

    def __init__(self, code: Literal["broken_cursor", "foreign_cursor"], message: str) -> None:
        super().__init__(message)
        self.code = code


def encode(position: Position, binding: str) -> str:
    """Return the cursor that continues after ``position`` in the listing named by ``binding``."""
    microseconds = (position.at - _EPOCH) // _MICROSECOND
    where = (microseconds, position.id.bytes, _digest(binding.encode()))
    if position.rank is None:
        body = _BODY.pack(_VERSION, *where)
    else:
        body = _BODY_RANKED.pack(_VERSION_RANKED, *where, position.rank)
    return _text(body + _digest(body))


def decode(cursor: str, binding: str) -> Position:
    """Return where to continue; raises CursorError when damaged or made for another listing."""
    body = _checked_body(cursor)
    is_ranked = len(body) == _BODY_RANKED.size
    version, microseconds, identity, bound_to, *rank = (_BODY_RANKED if is_ranked else _BODY).unpack(body)
    if version != (_VERSION_RANKED if is_ranked else _VERSION):
        raise CursorError("broken_cursor", "made by another version; start again without it")
    if bound_to != _digest(binding.encode()):
        raise CursorError(
            "foreign_cursor", "made for other filters; repeat those, or start again without it"
        )
    try:
        at = _EPOCH + microseconds * _MICROSECOND
    except OverflowError as error:
        raise CursorError("broken_cursor", "holds no valid time; start again without it") from error
    return Position(at, uuid.UUID(bytes=identity), *rank)


def _checked_body(cursor: str) -> bytes:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    # Base64 can spell the same bytes in several ways; one position has one cursor.
    if len(body) not in {_BODY.size, _BODY_RANKED.size} or check != _digest(body) or _text(raw) != cursor:
        raise CursorError("broken_cursor", "not a cursor of this API; start again without it")
    return body


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECK_BYTES]
