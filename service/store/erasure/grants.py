"""What the login that erases and retains needs beside SELECT and DELETE, by table."""

from collections.abc import Mapping, Sequence
from typing import Final

ERASING: Final[Mapping[str, Sequence[str]]] = {
    # Without a time of its own choice.
    "log_tombstones": ["SELECT", "INSERT (id, reason, authority, leaves, count, log_salt)"],
    "log_pending": ["SELECT", "INSERT (kind, commitments)"],
    # Whose triggers let ids be taken out, and entries go by a run of their own.
    "access_log": ["SELECT", "DELETE", "UPDATE (subject_ids, capture_ids, details, log_salt, log_trail)"],
    "flags": [
        "SELECT",
        "DELETE",
        "UPDATE (positions_matched, positions_verified)",
        "UPDATE (first_captured_at, last_captured_at, updated_at)",
        "UPDATE (log_salt, log_trail)",
    ],
    # Locked before it is deleted, for which PostgreSQL asks for the right to update something.
    "incidents": ["SELECT", "DELETE", "UPDATE (updated_at)"],
    "erasures": ["SELECT", "UPDATE (state, identifier, counts, held, clean_since, finished_at)"],
}
