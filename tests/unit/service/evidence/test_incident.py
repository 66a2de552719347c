"""Where an incident stands follows from its events, whatever their order."""

from service.evidence.incident import Histories, IncidentState, Mismatch


def event(version: int, kind: str, to_state: str, **more: object) -> dict[str, object]:
    base = {"incident_id": "i", "version": version, "kind": kind, "to_state": to_state, "severity": "info"}
    return {**base, "labels": {}, **more}


def compare(events: list[dict[str, object]], *incidents: IncidentState) -> list[Mismatch]:
    histories = Histories()
    histories.add(reversed(events))
    return list(histories.compare(incidents))


OPENED = event(1, "opened", "open")
CONFIRMED = event(2, "triaged", "confirmed", labels={"bombs": True})


def test_further_evidence_raises_the_severity_and_leaves_the_labels() -> None:
    more = event(3, "evidence", "confirmed", severity="critical")

    assert (
        compare([OPENED, CONFIRMED, more], IncidentState("i", 3, "confirmed", "critical", {"bombs": True}))
        == []
    )


def test_what_is_opened_again_has_no_labels() -> None:
    dismissed = event(2, "triaged", "dismissed", labels={"bombs": False})
    reopened = event(3, "reopened", "open")

    assert compare([OPENED, dismissed, reopened], IncidentState("i", 3, "open", "info", {})) == []


def test_every_difference_is_named() -> None:
    [found] = compare([OPENED, CONFIRMED], IncidentState("i", 2, "dismissed", "info", {}))

    assert found == Mismatch(
        "i",
        "its state: dismissed, and its events say confirmed;"
        " its labels: {}, and its events say {'bombs': True}",
    )


def test_a_decision_that_only_the_access_log_tells_of_is_missed() -> None:
    entered = {"operation": "change_state", "action": "write", "subject_kind": "incident"}
    histories = Histories()
    histories.add([OPENED])
    histories.add_access([entered | {"subject_ids": ["i"]}, {"operation": "list", "subject_ids": ["i"]}])

    [found] = histories.compare([IncidentState("i", 1, "open", "info", {})])

    assert found == Mismatch("i", "the access log tells of 1 decisions on it, and its events of 0")


def test_decisions_of_before_there_was_an_access_log_need_none() -> None:
    assert compare([OPENED, CONFIRMED], IncidentState("i", 2, "confirmed", "info", {"bombs": True})) == []


def test_an_incident_without_events_and_events_without_an_incident_are_named() -> None:
    found = compare([OPENED], IncidentState("other", 1, "open", "info", {}))

    assert found == [Mismatch("other", "it has no event"), Mismatch("i", "it has events and no row")]


def test_who_has_an_incident_follows_from_its_last_assignment_which_leaves_the_labels() -> None:
    taken = event(3, "assigned", "confirmed", assignee_key_id="k", assignee_key_name="night shift")
    proposed = event(4, "proposed", "confirmed", labels={"bombs": False})
    history = [OPENED, CONFIRMED, taken, proposed]
    named = ("k", "night shift", None, None)
    stands = IncidentState("i", 4, "confirmed", "info", {"bombs": True}, named)

    assert compare(history, stands) == []
    [found] = compare(history, stands._replace(assignee=(None,) * 4))
    assert found.why.startswith("its assignee: (None, None, None, None), and its events say ('k',")
    released = event(5, "assigned", "confirmed")
    assert compare([*history, released], stands._replace(version=5, assignee=(None,) * 4)) == []
