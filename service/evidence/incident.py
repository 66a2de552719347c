"""Where an incident stands has to follow from its events, to which the log commits. Pure.

The row of an incident is changed with each event and has no entry of its own: it says nothing that they do
not say. Its last events can be buried, and the row set back to what is left: what somebody decided is then
in the access log still, whose entries are deleted by nobody.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from service.incidents.lifecycle import EventKind

ASSIGNEE: Final = ("assignee_key_id", "assignee_key_name", "assignee_issuer", "assignee_person")
"""The columns that name who looks at an incident, of its row and of events of kind `assigned`."""
# These leave the labels as they are.
_WITHOUT_LABELS: Final = frozenset({EventKind.EVIDENCE, EventKind.ASSIGNED, EventKind.PROPOSED})
_CHANGES: Final = {"operation": "change_state", "action": "write", "subject_kind": "incident"}
"""What entries of the access log say that are made in the transaction of a decision's event."""
_DECISIONS: Final = frozenset({EventKind.TRIAGED, EventKind.PROPOSED})


class IncidentState(NamedTuple):
    """Where an incident stands, as its row or its events say."""

    key: str
    version: int
    state: str
    severity: str
    labels: Mapping[str, Any]
    assignee: Sequence[str | None] = (None,) * len(ASSIGNEE)
    """By `ASSIGNEE`."""


class Mismatch(NamedTuple):
    """An incident that does not stand where its events have left it."""

    key: str
    why: str


class Histories:
    """The events of incidents, in any order."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Any]] = {}
        self._labelled: dict[str, Mapping[str, Any]] = {}
        self._assigned: dict[str, Mapping[str, Any]] = {}
        self._counts: Counter[str] = Counter()
        self._decided: Counter[str] = Counter()
        self._entered: Counter[str] = Counter()

    def add(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take events, as the log's payloads of them."""
        for event in events:
            incident = event["incident_id"]
            self._counts[incident] += 1
            self._decided[incident] += event["kind"] in _DECISIONS
            _keep_newest(self._last, incident, event)
            if event["kind"] not in _WITHOUT_LABELS:
                _keep_newest(self._labelled, incident, event)
            if event["kind"] == EventKind.ASSIGNED:
                _keep_newest(self._assigned, incident, event)

    def add_access(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take entries of the access log, as the log's payloads of them."""
        for one in entries:
            if all(one.get(name) == value for name, value in _CHANGES.items()):
                self._entered.update(map(str, one["subject_ids"]))

    def compare(self, incidents: Iterable[IncidentState]) -> Iterator[Mismatch]:
        """Yield the incidents whose row says another thing than their events, and those without a row."""
        missing = set(self._last)
        for found in incidents:
            missing.discard(found.key)
            if (due := self._of(found.key)) is None:
                yield Mismatch(found.key, "it has no event")
            elif self._counts[found.key] != due.version:
                # Erasure takes all events of an incident, or none.
                yield Mismatch(found.key, f"it has {self._counts[found.key]} of its {due.version} events")
            elif self._entered[found.key] > (decided := self._decided[found.key]):
                # Erasure takes an incident's id out of the access log with the incident. Of before there
                # was an access log there are events without an entry.
                told = f"{self._entered[found.key]} decisions on it, and its events of {decided}"
                yield Mismatch(found.key, f"the access log tells of {told}")
            elif due != found:
                yield Mismatch(found.key, _difference(due, found))
        for key in sorted(missing):
            yield Mismatch(key, "it has events and no row")

    def _of(self, key: str) -> IncidentState | None:
        if (last := self._last.get(key)) is None:
            return None
        labelled = self._labelled.get(key)
        labels = labelled["labels"] if labelled and labelled["kind"] == EventKind.TRIAGED else {}
        assigned = self._assigned.get(key, {})
        assignee = tuple(assigned.get(column) for column in ASSIGNEE)
        return IncidentState(key, last["version"], last["to_state"], last["severity"], labels, assignee)


def _keep_newest(known: dict[str, Mapping[str, Any]], key: str, event: Mapping[str, Any]) -> None:
    if key not in known or known[key]["version"] < event["version"]:
        known[key] = event


def _difference(due: IncidentState, found: IncidentState) -> str:
    pairs = zip(IncidentState._fields, due, found, strict=True)
    return "; ".join(
        f"its {name}: {now}, and its events say {then}" for name, then, now in pairs if then != now
    )
