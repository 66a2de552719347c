"""What the tests of the access log read, and how they name it."""

import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from service.store.access.tables import AccessEntry
from service.store.exports.tables import Export
from service.store.tables import Explanation, Incident
from subtext_sidecar.contract.configuration import Kind, configuration

Entries = Callable[[], Sequence[AccessEntry]]


RUNS = configuration(Kind.WORKER, {"version": "1"})


class Stored(NamedTuple):
    """What there is to read."""

    explanations: list[Explanation]
    incident: Incident
    hold: uuid.UUID
    export: Export
    erasure: uuid.UUID
    certificate: uuid.UUID
    version: uuid.UUID
    """Of a period that waits."""
