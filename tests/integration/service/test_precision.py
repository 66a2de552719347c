from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

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
