"""What REST answers of the log leads from a stored explanation to a root that was signed."""

import base64
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.evidence import entry, merkle, note
from service.sequencer.sequencer import Sequencer
from service.store import identity, keys
from service.store.engine import create_engine, session_factory
from service.store.evidence.append import add_pending
from service.store.evidence.rows import list_rows
from service.store.tables import Explanation
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
SIGNER = note.generate("subtext.example")


@pytest.fixture
def sequencer(sequencer_url: str, tmp_path: Path) -> Iterator[Sequencer]:
    engine = create_engine(sequencer_url)
    yield Sequencer(session_factory(engine), SIGNER, tmp_path)
    engine.dispose()


@pytest.fixture
def logged(sessions: Sessions) -> list[uuid.UUID]:
    """Three explanations that wait for their places."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in range(3):
            made = seed.add_explanation(session, audited, position=position, concept="deception")
            made.log_salt = entry.new_salt()
        session.flush()
        tenant = identity.tenant_id(identity.DEFAULT_TENANT)
        rows = [row for part in list_rows(session, tenant) for row in part if row.kind == "explanation"]
        add_pending(session, "explanation", [one for row in rows for one in row.commitments])
    return [uuid.UUID(row.key) for row in rows]


def test_a_proof_leads_from_the_entry_to_the_signed_root(
    client: TestClient,
    headers_for: Callable[..., Headers],
    sequencer: Sequencer,
    sessions: Sessions,
    logged: list[uuid.UUID],
) -> None:
    headers = headers_for("audit:read")
    asked = {"explanation_id": str(logged[1])}
    assert client.get("/v1/log/checkpoint", headers=headers).json()["code"] == "no_checkpoint"
    assert client.get("/v1/log/proof", params=asked, headers=headers).json()["code"] == "not_in_log"
    sequencer.sequence()
    sequencer.sign()

    signed = client.get("/v1/log/checkpoint", headers=headers)
    answer = client.get("/v1/log/proof", params=asked, headers=headers)

    assert signed.headers["content-type"].startswith("text/plain")
    checkpoint = note.read_checkpoint(SIGNER.verifier.open(signed.text))
    told = answer.json()
    assert told["checkpoint"] == signed.text
    assert (told["tree_size"], base64.b64decode(told["root"])) == (checkpoint.size, checkpoint.root)
    merkle.check_inclusion(
        base64.b64decode(told["entry"]["leaf_hash"]),
        told["entry"]["seq"],
        checkpoint.size,
        [base64.b64decode(one) for one in told["inclusion_proof"]],
        checkpoint.root,
    )
    assert seed.SECRET_TEXT not in answer.text

    with sessions.begin() as session:
        session.scalars(select(Explanation).where(Explanation.id == logged[1])).one().fve = 0.99
    assert client.get("/v1/log/proof", params=asked, headers=headers).json()["code"] == "not_in_log"


def test_an_explanation_that_nobody_stored_has_no_proof(client: TestClient, admin: Headers) -> None:
    answer = client.get("/v1/log/proof", params={"explanation_id": str(uuid.uuid4())}, headers=admin)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_explanation")


def key_for(sessions: Sessions, *models: str) -> Headers:
    """Make a key that reads the log's answers for these models alone."""
    secret = auth.new_secret()
    with sessions.begin() as session:
        digest = auth.digest(secret)
        keys.add_key(session, name="k", secret_sha256=digest, scopes=["audit:read"], models=models)
    return {"Authorization": f"Bearer {secret}"}


def test_to_a_key_for_other_models_a_proof_is_as_unknown_as_that_of_no_explanation(
    client: TestClient, sequencer: Sequencer, sessions: Sessions, logged: list[uuid.UUID]
) -> None:
    with sessions.begin() as session:
        seed.add_model(session, "other")
    sequencer.sequence()
    sequencer.sign()
    own, stranger = key_for(sessions, "tiny", "other"), key_for(sessions, "other")

    def told(headers: Headers, wanted: uuid.UUID) -> tuple[int, str]:
        answer = client.get("/v1/log/proof", params={"explanation_id": str(wanted)}, headers=headers)
        return answer.status_code, answer.text.replace(str(wanted), "ID")

    status, body = told(stranger, logged[1])

    assert (status, "unknown_explanation" in body, "tiny" in body) == (404, True, False)
    assert (status, body) == told(stranger, uuid.uuid4())
    assert told(own, logged[1])[0] == 200
    # The log is the tenant's, and so is its checkpoint: it names neither models nor rows.
    signed = [client.get("/v1/log/checkpoint", headers=headers) for headers in (own, stranger)]
    assert signed[0].status_code == 200
    assert signed[0].text == signed[1].text
