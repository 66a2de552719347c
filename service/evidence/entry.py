"""What one leaf of the log holds: kind, time and a salted commitment to a row. Pure but for salts.

Whoever has row and salt recomputes the commitment. Without the salt, which is erased with the row, nothing
can be told from it, not even by guessing the row.
"""

import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

import rfc8785

from service.evidence import merkle

SALT_BYTES: Final = 16
TRANSACTION_TIME: Final = timedelta(minutes=10)
"""No transaction of ours lives longer, so no entry is older than its row or an earlier entry by more."""
COMMITMENT_BYTES: Final = 32
_SAFE_INTEGER: Final = 2**53 - 1  # what JSON's numbers hold exactly
_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 2.0**53


class Leaf(NamedTuple):
    """An entry at its place in the log."""

    seq: int
    kind: str
    """A Kind, or one of a later version."""
    at: datetime
    """When the transaction of its row began, by the database's clock."""
    commitment: bytes

    def hash(self) -> bytes:
        """Return its hash in the tree."""
        return merkle.leaf_hash(entry_bytes(self.kind, self.at, self.commitment))


def entry_bytes(kind: str, at: datetime, commitment: bytes) -> bytes:
    """Return the entry in canonical JSON (RFC 8785). A kind is lower-case letters and underscores."""
    return f'{{"at":"{moment(at)}","commitment":"{commitment.hex()}","kind":"{kind}"}}'.encode()


def new_salt() -> bytes:
    """Return a salt for one row."""
    return secrets.token_bytes(SALT_BYTES)


def commit(salt: bytes, payload: Mapping[str, Any]) -> bytes:
    """Return the commitment: HMAC-SHA256 by the salt over the payload in canonical JSON."""
    return hmac.digest(salt, canonical(payload), sha256)


def moment(at: datetime) -> str:
    """Return a time as the log writes it: UTC, with microseconds."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def plain(value: Any) -> Any:  # noqa: PLR0911  # one a type
    """Return a column's value as JSON has it; what JSON's numbers cannot hold becomes text.

    A value comes to the same whether it is about to be stored or was read from PostgreSQL. Raises TypeError
    for what no column of ours holds.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else _large(value)
        case float():
            return float(value) if abs(value) < float("inf") else str(float(value))
        case datetime():
            return moment(value)
        case UUID():
            return str(value)
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _ if hasattr(value, "item"):  # a number of NumPy
            return plain(value.item())
        case _:
            raise TypeError(f"a {type(value).__name__} has no place in the log's payloads")


def _large(value: int) -> float | str:
    """Return the float that jsonb has written as this integer, by its shortest digits; else the digits."""
    try:
        written = float(value)
    except OverflowError:
        return str(value)
    return written if int(Decimal(repr(written))) == value else str(value)


def canonical(value: Any) -> bytes:
    """Return plain JSON in the canonical form of RFC 8785."""
    try:
        # Ten times as fast, and the same where numbers and keys are usual.
        return json.dumps(
            _usual(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except _UnusualError:
        return rfc8785.dumps(value)


class _UnusualError(Exception):
    """Python's JSON would write it otherwise than RFC 8785."""


def _usual(value: Any) -> Any:
    match value:
        case float():
            if value.is_integer() and abs(value) <= _SAFE_INTEGER:
                return int(value)
            if not _LEAST_PLAIN <= abs(value) < _MOST_PLAIN:
                raise _UnusualError
            return value
        case dict():
            if not "".join(value).isascii():
                raise _UnusualError
            return {key: _usual(one) for key, one in value.items()}
        case list():
            return [_usual(one) for one in value]
        case _:
            return value
