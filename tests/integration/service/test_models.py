import dataclasses

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.store.tables import Decoder
from service.store.write import decoders
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
    assert item["verified_above"] == {"template": 0.3, "prompt": 0.2, "answer": 0.1}
    assert item["candidates"] == 4
    assert item["card"] == {"centred_fve": 0.41}


def test_a_known_decoder_learns_what_only_a_newer_worker_tells(sessions: Sessions) -> None:
    old = seed.DECODER
    new = dataclasses.replace(old, verified_above={"answer": 0.1}, candidates=4, card={})

    with sessions.begin() as session:
        ids = [decoders.register_decoder(session, decoder) for decoder in (old, new, old)]

    with sessions() as session:
        decoder = session.get_one(Decoder, ids[0][1])
    assert len(set(ids)) == 1
    assert (decoder.verified_above, decoder.card) == ({"answer": 0.1}, {"centred_fve": 0.41})
