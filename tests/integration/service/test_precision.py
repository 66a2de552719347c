import datetime as dt

from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session, sessionmaker

from service.incident_metrics import IncidentMetrics
from service.store.read.precision import WATCHED_WITHIN, Labels, Watched, count_watched
from service.watch.incident_watch import IncidentWatch
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
OTHER = "1" * 64


def test_precision_counts_labels_by_detector_and_says_what_it_leaves_out(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        labelled = {
            "a": ("confirmed", {"harm": True, "deception": False}),
            "b": ("confirmed", {"harm": True}),
            "c": ("dismissed", {"harm": False}),
            "d": ("dismissed", {}),
            "e": ("open", {}),
            "f": ("acknowledged", {}),
        }
        for request_id, (state, labels) in labelled.items():
            incident = seed.add_incident(
                session, seed.add_flag(session, audited, request_id=request_id, concept="harm")
            )
            incident.state, incident.labels = state, labels
        seed.add_flag(session, audited, request_id="a", concept="deception")
        seed.add_flag(session, audited, request_id="of before", concept="harm")
        later = seed.add_flag(
            session,
            audited,
            request_id="g",
            concept="harm",
            concepts_digest=OTHER,
            false_positive_rate=0.01,
        )
        seed.add_incident(session, later)

    items = client.get("/v1/precision", headers=admin).json()["items"]

    parts = ("raised", "confirmed", "dismissed", "open", "closed_without_label", "without_incident")
    counted = {
        (item["concept"], item["concepts_digest"][0], item["status"]): [item[part] for part in parts]
        for item in items
    }
    assert counted == {
        ("deception", "0", "lead"): [1, 0, 1, 0, 0, 0],
        ("harm", "0", "lead"): [7, 2, 1, 2, 1, 1],
        ("harm", "1", "calibrated"): [1, 0, 0, 1, 0, 0],
    }
    harm = next(item for item in items if item["raised"] == 7)
    assert harm["precision"]["labelled"] == 3
    assert harm["precision"]["lower"] < harm["precision"]["estimate"] == 2 / 3 < harm["precision"]["upper"]
    assert (harm["unlabelled"]["numerator"], harm["unlabelled"]["denominator"]) == (4, 7)
    assert next(item for item in items if item["status"] == "calibrated")["precision"] is None
    assert [
        item["concept"] for item in client.get("/v1/precision?concept=harm", headers=admin).json()["items"]
    ] == [
        "harm",
        "harm",
    ]


def label(
    session: Session, audited: seed.Audited, number: int, *, holds: bool, created: dt.datetime
) -> None:
    """Add a flag of the concept "harm" on a request of its own, with what people said of it."""
    flag = seed.add_flag(
        session, audited, request_id=f"{audited.decoder.layer}-{number}", concept="harm", created_at=created
    )
    incident = seed.add_incident(session, flag)
    incident.state, incident.labels = "confirmed" if holds else "dismissed", {"harm": holds}


def test_each_layer_has_a_precision_of_its_own_and_what_is_old_counts_no_more(sessions: Sessions) -> None:
    now = dt.datetime.now(dt.UTC)
    with sessions.begin() as session:
        first = seed.add_model(session, "org/tiny", layer=20)
        second = seed.add_decoder(session, first.model, layer=23)
        for number in range(4):
            label(session, first, number, holds=False, created=now)
        for number in range(3):
            label(session, second, number, holds=True, created=now)
        label(session, first, 9, holds=True, created=now - WATCHED_WITHIN - dt.timedelta(hours=1))
        seed.add_flag(session, second, request_id="unlabelled", concept="harm", created_at=now)
        seed.add_flag(session, first, request_id="another", concept="harm", created_at=now)

    with sessions() as session:
        counted = count_watched(session)
    assert counted == {
        Watched("org/tiny", 20, "harm"): Labels(raised=5, confirmed=0, dismissed=4),
        Watched("org/tiny", 23, "harm"): Labels(raised=4, confirmed=3, dismissed=0),
    }
    registry = CollectorRegistry()
    IncidentWatch(sessions, IncidentMetrics(registry), {}).look(now)
    upper = {
        layer: registry.get_sample_value(
            "subtext_concept_precision_ratio",
            {"model": "org/tiny", "layer": layer, "concept": "harm", "bound": "upper"},
        )
        for layer in ("20", "23")
    }
    assert upper["20"] is not None
    assert upper["20"] < 0.61
    assert upper["23"] == 1.0


def test_the_precision_that_is_watched_is_that_of_the_detector_that_raised_last(sessions: Sessions) -> None:
    now = dt.datetime.now(dt.UTC)
    with sessions.begin() as session:
        audited = seed.add_model(session, "org/tiny", layer=20)
        label(session, audited, 1, holds=False, created=now - dt.timedelta(hours=1))
        seed.add_flag(
            session, audited, request_id="new", concept="harm", concepts_digest=OTHER, created_at=now
        )

    with sessions() as session:
        assert count_watched(session) == {Watched("org/tiny", 20, "harm"): Labels(1, 0, 0)}
