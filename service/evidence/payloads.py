"""Which columns of which tables the log commits to: the one place that says so. Pure.

A column is in a payload, or is named here among those that may change. A change of a payload's columns is
another version, and rows of before keep theirs: what a row holds says by which version it is read, so that
a value that comes or goes is another payload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from service.evidence.entry import plain

VERSION: Final = 1
SUBJECT_VERSION: Final = 2
"""Of an explanation whose sample has a subject key; all others are of VERSION, like those of before."""
NEVER: Final = frozenset({"tenant_id", "log_salt", "log_trail"})
"""Columns of no payload: whose log it is says the tenant, and the others are the log's own."""
_PEOPLE: Final = ("session_id", "issuer", "person")
"""Who did it, of tables that named keys alone before people could sign in."""


class Kind(StrEnum):
    """What an entry is about."""

    EXPLANATION = "explanation"
    FLAG = "flag"
    INCIDENT_EVENT = "incident_event"
    CONCEPT_VERSION = "concept_version"
    DECODER = "decoder"
    ACCESS = "access"
    RETENTION_VERSION = "retention_version"
    LEGAL_HOLD = "legal_hold"
    LEGAL_HOLD_LIFT = "legal_hold_lift"
    REMOVAL_DECISION = "removal_decision"
    TOMBSTONE = "tombstone"
    CONFIGURATION_VERSION = "configuration_version"
    CONFIGURATION_CONTENT = "configuration_content"
    CONFIGURATION_PERIOD = "configuration_period"
    DELETION_CERTIFICATE = "deletion_certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one table."""

    table: str
    committed: Sequence[str]
    where_set: Sequence[str] = ()
    """In a payload only where they are not null: those that a later version has."""
    may_change: Sequence[str] = ()


SAMPLE: Final = Columns(
    table="samples",
    committed=(
        "id", "model_id", "capture_id", "request_id", "layer", "position", "token_id", "token_text",
        "phase", "norm", "stratum", "trace_id", "span_id", "role", "inclusion_probability",
        "baseline_probability",
        "reason", "screen_scores", "captured_at", "configuration_id",
    ),
    where_set=("subject",),
    may_change=("stored_at",),  # the store's own note; nothing is worked out from it
)  # fmt: skip
"""Of what was explained; part of the explanation's payload."""

MATCH: Final = Columns(
    table="concept_matches",
    committed=("concept", "concept_digest", "matcher", "score"),
    may_change=("explanation_id", "captured_at"),
)
"""Of the concepts that an explanation matches, by name; part of its payload, which has its id and time."""

COLUMNS: Final[Mapping[Kind, Columns]] = {
    Kind.EXPLANATION: Columns(
        table="explanations",
        committed=(
            "id", "sample_id", "decoder_id", "captured_at", "text", "well_formed", "cosine", "fve",
            "fve_beyond_token", "position_class", "verified", "claims", "candidates", "margin",
            "anomaly_score", "anomaly_p_value", "anomaly_calibration_n", "configuration_id", "created_at",
        ),
    ),
    Kind.FLAG: Columns(
        table="flags",
        committed=(
            "id", "model_id", "decoder_id", "capture_id", "request_id", "layer", "concept",
            "concepts_digest", "concept_version", "concept_digest", "severity",
            "positions_matched", "positions_required",
            "positions_verified", "status", "false_positive_rate", "false_positive_rate_upper",
            "calibration_requests", "calibration_digest", "first_captured_at", "last_captured_at",
            "created_at",
        ),
        may_change=("updated_at",),  # also when nothing else did; each change has an entry with its time
    ),
    Kind.INCIDENT_EVENT: Columns(
        table="incident_events",
        committed=(
            "id", "incident_id", "version", "kind", "at", "key_id", "key_name", "from_state", "to_state",
            "severity", "reason", "note", "labels", "findings",
        ),
        where_set=(
            *_PEOPLE, "assignee_key_id", "assignee_key_name", "assignee_issuer", "assignee_person",
            "proposed_state", "proposal",
        ),
    ),
    Kind.CONCEPT_VERSION: Columns(
        table="concept_versions", committed=("digest", "name", "version", "definition", "created_at")
    ),
    Kind.DECODER: Columns(
        table="decoders",
        committed=(
            "id", "model_id", "name", "digest", "layer", "fve_baseline", "shuffled_fve_p95",
            "verified_above", "candidates", "calibration_n", "card", "created_at",
        ),
    ),
    Kind.ACCESS: Columns(
        table="access_log",
        committed=(
            "id", "seq", "at", "key_id", "key_name", "database_login", "os_user", "action", "operation",
            "subject_kind", "subject_ids", "subjects_total", "capture_ids", "captures_total", "details",
            "purpose", "purpose_note", "status", "result", "suppressed",
        ),
        where_set=_PEOPLE,
    ),
    Kind.RETENTION_VERSION: Columns(
        table="retention_versions",
        committed=(
            "id", "model_id", "retention_class", "floor_days", "ceiling_days", "period_days",
            "in_force_from", "reason", "key_id", "key_name", "set_at",
        ),
        where_set=(*_PEOPLE, "records"),
        # The database's own: a service of before adds a row without having read them back.
        may_change=("objectable_until", "asked_by"),
    ),
    Kind.LEGAL_HOLD: Columns(
        table="legal_holds",
        committed=(
            "id", "model_id", "captured_from", "captured_to", "request_names", "capture_id", "trace_id",
            "concept", "subject", "reason", "reference", "key_id", "key_name", "placed_at",
        ),
        where_set=_PEOPLE,
    ),
    Kind.LEGAL_HOLD_LIFT: Columns(
        table="legal_hold_lifts",
        committed=("id", "hold_id", "step", "step_before", "reason", "key_id", "key_name", "at"),
        where_set=_PEOPLE,
    ),
    Kind.REMOVAL_DECISION: Columns(
        table="removal_decisions",
        committed=(
            "id", "erasure_id", "version_id", "decision", "asked_by", "reason", "key_id", "key_name", "at",
        ),
        where_set=_PEOPLE,
        may_change=("decided_by",),  # the database works it out of the others
    ),
    Kind.DELETION_CERTIFICATE: Columns(
        table="deletion_certificates",
        committed=("id", "reason", "authority", "model_id", "document", "issued_at"),
    ),
    Kind.TOMBSTONE: Columns(
        table="log_tombstones", committed=("id", "at", "reason", "authority", "leaves", "count")
    ),
    Kind.CONFIGURATION_VERSION: Columns(
        table="configuration_versions", committed=("id", "kind", "digest", "created_at")
    ),
    Kind.CONFIGURATION_CONTENT: Columns(
        table="configuration_contents",
        committed=("version_id", "content", "created_at"),  # the content as its very text
    ),
    Kind.CONFIGURATION_PERIOD: Columns(
        table="configuration_periods",
        committed=(
            "id", "version_id", "kind", "model", "layer", "source", "hop", "began_at", "ended_at",
        ),
        # Every process moves it each minute: an entry of each would outgrow those of all readings.
        may_change=("last_seen_at",),
    ),
}  # fmt: skip


def payload_of(kind: Kind, row: Mapping[str, Any], trail: Sequence[bytes] = ()) -> dict[str, Any]:
    """Return the payload of a row, by column; ``trail`` is its earlier commitments, the oldest first.

    A row that changes has an entry for each state. The trail in its last one accounts for the others.
    """
    payload = _of(COLUMNS[kind], row) | {"v": VERSION, "table": COLUMNS[kind].table}
    return payload | {"trail": [one.hex() for one in trail]} if trail else payload


def explanation_payload(
    row: Mapping[str, Any], sample: Mapping[str, Any], matches: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the payload of an explanation, with its sample and the concepts that it matches."""
    found = sorted((_of(MATCH, one) for one in matches), key=lambda one: str(one["concept"]))
    of_sample = _of(SAMPLE, sample)
    payload = payload_of(Kind.EXPLANATION, row) | {"sample": of_sample, "matches": found}
    return payload | {"v": SUBJECT_VERSION} if "subject" in of_sample else payload


def _of(columns: Columns, row: Mapping[str, Any]) -> dict[str, Any]:
    # What is not set is stored as NULL.
    of_every_row = {name: plain(row.get(name)) for name in columns.committed}
    later = {name: plain(row[name]) for name in columns.where_set if row.get(name) is not None}
    return of_every_row | later
