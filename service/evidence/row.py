"""A row that the log should have an entry of, as the store gives it now. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from service.evidence.entry import commit
from service.evidence.payloads import Kind


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row with what opens its entry."""

    kind: str
    key: str
    """By which it is found in its table."""
    at: datetime
    """When it was stored, as it says itself."""
    salt: bytes | None
    """None: it has no entry, as rows of before the log."""
    payload: Mapping[str, Any]
    trail: Sequence[bytes] = ()
    """The commitments to its earlier states."""

    @cached_property
    def commitments(self) -> Sequence[bytes]:
        """Every commitment that the log should have for it, the oldest first; none without a salt."""
        return () if self.salt is None else (*self.trail, commit(self.salt, self.payload))

    def accounts_for(self, number: int) -> bool:
        """Tell whether the row accounts for its commitment of this number.

        What an entry of the access log said before ids were erased from it is for a tombstone to answer.
        """
        return self.kind != Kind.ACCESS or number == len(self.commitments) - 1
