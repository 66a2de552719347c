"""What may be exported, which entries of the log that is, and which scopes it needs. Pure."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

from service.auth import Scope
from service.evidence.payloads import Kind


class ExportKind(StrEnum):
    """What an export may hold."""

    EXPLANATIONS = "explanations"
    FLAGS = "flags"
    INCIDENTS = "incidents"
    ACCESS_LOG = "access_log"
    RETENTION = "retention"
    """For how long rows are kept, what is under a hold, and certificates of what was deleted."""
    CONFIGURATIONS = "configurations"


ENTRIES: Final[Mapping[ExportKind, Sequence[Kind]]] = {
    ExportKind.EXPLANATIONS: (Kind.EXPLANATION,),
    ExportKind.FLAGS: (Kind.FLAG,),
    ExportKind.INCIDENTS: (Kind.INCIDENT_EVENT,),
    ExportKind.ACCESS_LOG: (Kind.ACCESS,),
    ExportKind.RETENTION: (
        Kind.RETENTION_VERSION,
        Kind.LEGAL_HOLD,
        Kind.LEGAL_HOLD_LIFT,
        Kind.REMOVAL_DECISION,
        Kind.DELETION_CERTIFICATE,
    ),
    ExportKind.CONFIGURATIONS: (
        Kind.CONFIGURATION_VERSION,
        Kind.CONFIGURATION_CONTENT,
        Kind.CONFIGURATION_PERIOD,
    ),
}
"""By what is exported, the kinds of its entries."""
ALWAYS: Final = (Kind.TOMBSTONE, Kind.DECODER, Kind.CONCEPT_VERSION)
"""By what right rows are gone, and what rows of every kind stand on."""
SCOPES: Final[Mapping[ExportKind, Scope]] = {
    ExportKind.EXPLANATIONS: Scope.EXPLANATIONS_READ,
    ExportKind.FLAGS: Scope.FLAGS_READ,
    ExportKind.INCIDENTS: Scope.FLAGS_READ,
    ExportKind.ACCESS_LOG: Scope.AUDIT_READ,
    ExportKind.RETENTION: Scope.HOLDS_READ,
    ExportKind.CONFIGURATIONS: Scope.COVERAGE_READ,
}
"""By what is exported, the scope that it needs beside the one for exports."""


def kinds_of(asked: Collection[str]) -> Sequence[Kind]:
    """Return the kinds of entries of which an export has the rows."""
    return [*ALWAYS, *(kind for one in sorted(asked) for kind in ENTRIES[ExportKind(one)])]


def scopes_of(asked: Collection[str], *, with_text: bool) -> list[str]:
    """Return the scopes that an export needs beside the one for exports, sorted."""
    scopes = {str(SCOPES[ExportKind(one)]) for one in asked}
    return sorted(scopes | ({str(Scope.EXPLANATIONS_READ_TEXT)} if with_text else set()))
