"""What a bundle consists of: its members, how a row stands in them, and what its manifest says. Pure.

| member | what | held by |
|---|---|---|
| leaves.ndjson | each entry of the log from before the period to behind it | the signed root |
| explanations.ndjson and so on, or .parquet | rows with what opens their entries | entries, manifest |
| withheld.ndjson | entries of the period that no row in the bundle opens, with the reason | manifest |
| coverage.json, configuration.ndjson, schemas/ | what else was asked for | manifest |
| paths.ndjson | inclusion proofs of rows whose last entry is not among those | the signed root |
| manifest.json | the query, the SHA-256 and count of each of these | the seal |
| proof.json | checkpoint, range proof and seal | the public key |

The seal is the export's own entry in the log: it holds the manifest's SHA-256, so that whoever signs
checkpoints signs the manifest with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from service.evidence.entry import moment
from service.evidence.payloads import Kind

FORMAT: Final = "subtext-bundle"
VERSION: Final = 1
LEAVES: Final = "leaves.ndjson"
WITHHELD: Final = "withheld.ndjson"
PATHS: Final = "paths.ndjson"
MANIFEST: Final = "manifest.json"
PROOF: Final = "proof.json"
SEAL_DETAIL: Final = "manifest_sha256"
"""Under which the seal's details have the SHA-256 of the manifest, in hexadecimal."""
FILES: Final[Mapping[str, str]] = {
    Kind.EXPLANATION: "explanations.ndjson",
    Kind.FLAG: "flags.ndjson",
    Kind.INCIDENT_EVENT: "incident_events.ndjson",
    Kind.ACCESS: "access.ndjson",
    Kind.DECODER: "decoders.ndjson",
    Kind.CONCEPT_VERSION: "concepts.ndjson",
    Kind.TOMBSTONE: "tombstones.ndjson",
    Kind.RETENTION_VERSION: "retention_versions.ndjson",
    Kind.LEGAL_HOLD: "legal_holds.ndjson",
    Kind.LEGAL_HOLD_LIFT: "legal_hold_lifts.ndjson",
    Kind.REMOVAL_DECISION: "removal_decisions.ndjson",
    Kind.DELETION_CERTIFICATE: "deletion_certificates.ndjson",
    Kind.CONFIGURATION_VERSION: "configuration_versions.ndjson",
    Kind.CONFIGURATION_CONTENT: "configuration_contents.ndjson",
    Kind.CONFIGURATION_PERIOD: "configuration_periods.ndjson",
}
"""By the kind of their entries, the members whose rows open entries, in lines."""


class RowFormat(StrEnum):
    """How rows that open entries are written. All else in a bundle is JSON."""

    NDJSON = "ndjson"
    PARQUET = "parquet"


def member_of(kind: str, form: RowFormat) -> str:
    """Return the member that has the rows of a kind."""
    return f"{FILES[kind].removesuffix('.ndjson')}.{form}"


OF_EVERY_READER: Final = frozenset({Kind.ACCESS, Kind.DECODER, Kind.TOMBSTONE})
"""Kinds whose rows no export may withhold for being of another model."""
TEXT_OF_EXPLANATION: Final = ("text", "claims")
TEXT_OF_SAMPLE: Final = ("token_id", "token_text")
"""What an explanation is handed out without where its text is not: then its entry stays closed."""


class Reason(StrEnum):
    """Why an entry of the period has no row in the bundle."""

    OUT_OF_SCOPE = "out_of_scope"
    """Of another model than was asked for or may be read, or a definition that somebody else uses."""
    ERASED = "erased"
    """Its row was erased under a tombstone, whose entry is named."""
    MISSING = "missing"
    """The store has no row for it and no tombstone. It is a finding."""


class ShapeError(ValueError):
    """A member that is not what it should be; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row in a member: its payload, and what ties it to the log."""

    payload: Mapping[str, Any]
    entry: int | None
    """The place of its last entry; None: it has none, as rows of before the log."""
    salt: bytes | None
    """What opens its entry; None: withheld with the text, or it has none."""
    at: datetime | None = None
    """The entry's time: the seal's, which is not among the bundle's entries."""
    path: Sequence[bytes] | None = None
    """The seal's inclusion proof."""
    earlier: Sequence[int] = ()
    """The places of its earlier states that are of the period."""

    @property
    def key(self) -> str:
        """By which the row is found in its table."""
        found = (self.payload.get(one) for one in ("id", "digest", "version_id"))
        return str(next((one for one in found if one is not None), None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What was asked for, as the manifest says."""

    kinds: Sequence[str]
    """Kinds of entries of which rows are handed out."""
    start: datetime
    end: datetime
    """The period: entries whose time is at or behind its start and before its end."""
    with_text: bool
    is_restricted: bool = False
    """To some models; then entries may be of others."""


def line_of(row: Line) -> dict[str, Any]:
    """Return a row as a member has it, for canonical JSON."""
    made: dict[str, Any] = {
        "entry": row.entry,
        "salt": None if row.salt is None else row.salt.hex(),
        "payload": dict(row.payload),
    }
    if row.path is not None and row.at is not None:
        made |= {"at": moment(row.at), "path": [one.hex() for one in row.path]}
    return made | ({"earlier": list(row.earlier)} if row.earlier else {})


def read_line(told: Any) -> Line:
    """Return the row of a member's line; ShapeError when it is none."""
    if not isinstance(told, dict) or not isinstance(told.get("payload"), dict):
        raise ShapeError("the line is no row: it has no payload")
    unknown = sorted(set(told) - {"entry", "salt", "payload", "at", "path", "earlier"})
    if unknown:
        raise ShapeError(f"the line has {unknown[0]!r}, which no row has")
    try:
        entry, earlier = told.get("entry"), told.get("earlier", [])
        if not all(type(one) is int for one in [*earlier, *([] if entry is None else [entry])]):
            raise ShapeError("the line names a place in the log that is no number")
        return Line(
            payload=told["payload"],
            entry=entry,
            salt=None if told.get("salt") is None else bytes.fromhex(told["salt"]),
            at=None if "at" not in told else read_moment(told["at"]),
            path=None if "path" not in told else [bytes.fromhex(one) for one in told["path"]],
            earlier=earlier,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ShapeError(f"the line is no row: {error}") from error


def read_query(manifest: Any) -> Query:
    """Return the query of a manifest; ShapeError when it is of another format."""
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise ShapeError(f"it is no manifest of {FORMAT}, version {VERSION}")
    try:
        query = manifest["query"]
        return Query(
            kinds=[str(one) for one in query["kinds"]],
            start=read_moment(query["from"]),
            end=read_moment(query["to"]),
            with_text=query["with_text"] is True,
            is_restricted=query.get("model") is not None or query.get("models") is not None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(f"its query cannot be read: {error!r}") from error


def read_moment(told: Any) -> datetime:
    """Return a time that `entry.moment` wrote; ValueError for any other writing."""
    try:
        found = datetime.fromisoformat(told)
        is_written_so = moment(found) == told
    except (TypeError, ValueError):
        is_written_so = False
    if not is_written_so:
        raise ValueError(f"{told!r} is no time as the log writes it")
    return found


def without_text(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of an explanation without what is as personal as its prompt."""
    made = {name: value for name, value in payload.items() if name not in TEXT_OF_EXPLANATION}
    sample = payload["sample"]
    return made | {"sample": {name: value for name, value in sample.items() if name not in TEXT_OF_SAMPLE}}
