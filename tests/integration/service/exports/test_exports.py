"""What is asked for over REST becomes a file that verifies offline, and only who may read it gets it."""

import json
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.erasure.run import run
from service.evidence.bundle.finding import What
from service.exports.erase import erase_exports
from service.exports.expire import expire
from service.exports.make import ExportError
from service.retention.decisions import Removal
from service.store import keys
from service.store.access.tables import AccessEntry
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope
from service.store.exports.tables import Export
from service.store.tables import Explanation
from service.store.triage import Actor
from tests.integration.service import seed
from tests.integration.service.exports import past
from tests.integration.service.exports.desk import Desk
from tests.support.people import sign_in

Headers = dict[str, str]
HeadersFor = Callable[..., Headers]


def members(file: Path, name: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(file) as opened:
        return [json.loads(line) for line in opened.read(name).splitlines()]


def test_an_export_with_text_verifies_offline_and_each_text_is_in_the_access_log(desk: Desk) -> None:
    kept = desk.client.get("/v1/log/checkpoint", headers=desk.admin).text
    export = desk.made(with_text=True, earlier_size=int(kept.split("\n")[1]))

    told, report, file = desk.told(export), desk.check(export, kept), desk.file(export)
    answer = desk.client.get(f"/v1/exports/{export}/download", headers=desk.admin)

    assert report.findings == []
    assert (told["state"], told["rows"], told["entries_withheld"]) == ("ready", report.rows_opened, 0)
    assert (answer.content, told["bytes"]) == (file.read_bytes(), len(answer.content))
    rows = members(file, "explanations.ndjson")
    assert {row["payload"]["id"] for row in rows} == set(map(str, desk.stored.explanations))
    assert {row["payload"]["text"] for row in rows} == {seed.SECRET_TEXT}
    assert len(members(file, "flags.ndjson")) == len(members(file, "incidents.ndjson")) == 1
    [coverage] = members_of_one(file, "coverage.json")
    assert coverage["start"] <= past.FROM.isoformat().replace("+00:00", "Z")
    with desk.sessions() as session:
        entries = list(session.scalars(select(AccessEntry).order_by(AccessEntry.seq)))
    assert [(one.action, one.operation) for one in entries] == [
        ("export", "create_export"),
        ("read_text", "make_export"),
        ("export", "make_export"),
        ("export", "download_export"),
    ]
    assert set(entries[1].subject_ids) == set(desk.stored.explanations)
    assert {one.purpose for one in entries} == {"debugging"}
    assert {tuple(one.subject_ids) for one in (entries[0], *entries[2:])} == {(export,)}


def members_of_one(file: Path, name: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(file) as opened:
        return [json.loads(opened.read(name))]


def test_every_row_is_of_its_schema_and_without_text_none_has_any(desk: Desk) -> None:
    with desk.sessions.begin() as session:
        person = sign_in(session, "anna")
    export = desk.made(headers=person)
    file, report = desk.file(export), desk.check(export)

    assert report.findings == []
    assert (desk.told(export)["key_id"], desk.told(export)["person"]) == (None, "anna")
    with desk.sessions() as session:
        assert {one.person for one in session.scalars(select(AccessEntry))} == {"anna"}
    assert report.rows_without_text == len(desk.stored.explanations)
    with zipfile.ZipFile(file) as opened:
        schemas = [name for name in opened.namelist() if name.startswith("schemas/")]
        for name in schemas:
            validator = jsonschema_rs.validator_for(json.loads(opened.read(name)))
            for row in members(file, f"{Path(name).stem}.ndjson"):
                validator.validate(row)
        everything = b"".join(opened.read(name) for name in opened.namelist())
    assert len(schemas) == 7
    for secret in (seed.SECRET_TEXT, seed.SECRET_TOKEN, seed.SECRET_AREA, str(seed.SECRET_TOKEN_ID)):
        assert secret.encode() not in everything


def test_a_row_that_was_changed_in_the_store_is_a_finding_in_the_bundle(desk: Desk) -> None:
    with desk.sessions.begin() as session:
        changed = update(Explanation).where(Explanation.id == desk.stored.explanations[0])
        session.execute(changed.values(text="nothing"))

    export = desk.made(with_text=True)

    report = desk.check(export)
    assert {one.what for one in report.findings} == {What.ROW_MISSING}
    assert report.withheld == {"missing": 1}
    assert desk.told(export)["entries_withheld"] == 1


def test_a_key_for_another_model_exports_nothing_of_this_one_and_meets_its_own_alone(desk: Desk) -> None:
    secret = auth.new_secret()
    with desk.sessions.begin() as session:
        seed.add_model(session, "other")
        keys.add_key(
            session, name="o", secret_sha256=auth.digest(secret), scopes=["admin"], models=["other"]
        )
    restricted = {"Authorization": f"Bearer {secret}", "Subtext-Purpose": "audit"}
    whole = desk.create()
    own = desk.made(headers=restricted, with_text=True)

    report, client = desk.check(own), desk.client

    assert report.findings == []
    # Three explanations, a flag, and the opening of the incident.
    assert report.withheld == {"out_of_scope": 5}
    assert members(desk.file(own), "explanations.ndjson") == []
    listed = client.get("/v1/exports", headers=restricted).json()["items"]
    assert [one["id"] for one in listed] == [str(own)]
    for path in (f"/v1/exports/{whole}", f"/v1/exports/{whole}/download"):
        assert client.get(path, headers=restricted).status_code == 404
    assert len(client.get("/v1/exports", headers=desk.admin).json()["items"]) == 2


def test_a_download_goes_on_where_it_was_cut_and_needs_the_scopes_of_what_is_in_it(
    desk: Desk, headers_for: HeadersFor
) -> None:
    export = desk.create(with_text=True)
    path, client = f"/v1/exports/{export}/download", desk.client
    early = client.get(path, headers=desk.admin)
    assert (early.status_code, early.json()["code"]) == (409, "export_not_ready")
    desk.maker.make(export)

    whole = client.get(path, headers=desk.admin)
    assert whole.headers["etag"] == f'"{desk.told(export)["sha256"]}"'
    resumed = desk.admin | {"Range": "bytes=100-", "If-Range": whole.headers["etag"]}
    rest = client.get(path, headers=resumed)
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    stale = client.get(path, headers=resumed | {"If-Range": '"another"'})
    assert (stale.status_code, stale.content) == (200, whole.content)

    scopes = ["exports:create", "explanations:read", "flags:read", "audit:read"]
    assert client.get(path, headers=headers_for(*scopes)).status_code == 403
    silent = headers_for(*scopes, "explanations:read_text")
    del silent["Subtext-Purpose"]
    assert client.get(path, headers=silent).json()["errors"][0]["code"] == "purpose_required"


def test_what_cannot_be_exported_is_refused_by_field_and_scope(
    client: TestClient, admin: Headers, headers_for: HeadersFor
) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"from": past.TO.isoformat()}, "empty_range"),
        ({"from": "2020-01-01T00:00:00Z"}, "range_too_long"),
        ({"to": "2199-01-01T00:00:00Z", "from": "2198-12-01T00:00:00Z"}, "period_not_over"),
        ({"model": "nobody"}, "unknown_model"),
        ({"earlier_size": 7}, "unknown_checkpoint"),
        ({"kinds": ["flags"], "with_text": True}, "no_text_in_kinds"),
        ({"kinds": ["flags", "flags"]}, "value_error"),
    ]
    for more, code in refused:
        answer = client.post("/v1/exports", json=past.asked(**more), headers=admin)
        assert answer.status_code == 422
        assert [one["code"] for one in answer.json()["errors"]] == [code]

    log = past.asked(kinds=["access_log"])
    answer = client.post("/v1/exports", json=log, headers=headers_for("exports:create"))
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert answer.json()["detail"].endswith("audit:read")


def test_without_a_log_that_goes_on_an_export_fails_and_says_so(desk: Desk) -> None:
    export = desk.create()
    impatient = replace(desk.maker, signed_within_seconds=0.01, sleep=lambda _seconds: None)

    with pytest.raises(ExportError, match="subtext log"):
        impatient.make(export)
    impatient.fail(export, "log_not_signed")

    told = desk.told(export)
    assert (told["state"], told["problem"]) == ("failed", "log_not_signed")
    gone = desk.client.get(f"/v1/exports/{export}/download", headers=desk.admin)
    assert (gone.status_code, gone.json()["code"]) == (410, "export_gone")


def test_an_erasure_takes_exports_along_and_waits_where_it_does_not_know_their_folder(
    desk: Desk, sessions: sessionmaker[Session], redis_url: str
) -> None:
    export = desk.made()
    with sessions.begin() as session:
        actor = Actor(uuid.UUID(int=9), "data protection")
        asked, _ = requests.ask(session, ErasureScope.TENANT, None, actor)
        seed.confirm(session, Removal(asked, "erasure"))

    with redis.Redis.from_url(redis_url) as streams:
        assert run(sessions, streams, settle_seconds=0).open == 1
        with sessions() as session:
            assert session.scalar(select(func.count()).select_from(Explanation)) == 3
        assert desk.file(export).exists()
        run(sessions, streams, settle_seconds=0, exports=desk.maker.folder)

    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Explanation)) == 0
    assert (desk.file(export).exists(), desk.told(export)["state"]) == (False, "erased")


def test_erasure_deletes_the_exports_that_hold_an_id_and_time_deletes_the_others(
    desk: Desk, sessions: sessionmaker[Session]
) -> None:
    with_it, without = desk.made(), desk.made(kinds=["access_log"])
    folder = desk.maker.folder
    with sessions.begin() as session:
        erased = erase_exports(session, folder, past.TENANT, [desk.stored.explanations[0]])
    assert erased == [with_it]
    assert (desk.file(with_it).exists(), desk.told(with_it)["state"]) == (False, "erased")
    assert desk.file(without).exists()

    assert expire(sessions, folder) == 0
    with sessions.begin() as session:
        session.execute(update(Export).where(Export.id == without).values(expires_at=past.AT))
    assert expire(sessions, folder) == 1
    assert (desk.file(without).exists(), desk.told(without)["state"]) == (False, "expired")
