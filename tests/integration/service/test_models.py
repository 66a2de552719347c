from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]


def test_models_tell_which_layers_are_read(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    with sessions.begin() as session:
        seed.add_model(session, "b", 7)
        seed.add_model(session, "a", 20)

    items = client.get("/v1/models", headers=admin).json()["items"]

    assert [(item["name"], item["layers"], item["d_model"]) for item in items] == [
        ("a", [20], 576),
        ("b", [7], 576),
    ]


def test_decoders_tell_their_calibration_and_card(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session, "a")
        seed.add_model(session, "b")

    [item] = client.get("/v1/decoders", params={"model": "a"}, headers=admin).json()["items"]

    assert len(client.get("/v1/decoders", headers=admin).json()["items"]) == 2
    assert item["id"] == str(audited.decoder.id)
    assert (item["calibration_n"], item["shuffled_fve_p95"], item["fve_baseline"]) == (512, 0.02, 0.49)
    assert item["card"] == {"centred_fve": 0.41}
