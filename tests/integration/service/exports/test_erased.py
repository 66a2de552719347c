"""A bundle of a store from which rows were erased and removed: it says so, and another verifier agrees."""

import datetime as dt
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from proofbundle import checkpoint as foreign_checkpoint
from proofbundle import merkle as foreign_merkle
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import verifying
from service.erasure.rows import erase_explanations
from service.evidence.bundle.check import check
from service.evidence.bundle.finding import What
from service.evidence.bundle.layout import LEAVES, PATHS, PROOF
from service.evidence.entry import commit, entry_bytes
from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason
from service.exports.query import ExportKind
from service.retention.pace import Pace
from service.retention.run import run
from service.sequencer.sequencer import Sequencer
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.configuration import write as configuration_write
from service.store.evidence.range import list_leaves
from service.store.evidence.tables import LogTombstone
from service.store.tables import Explanation
from service.store.tenants import scope
from subtext_sidecar.contract.configuration import Kind as Configured
from subtext_sidecar.contract.configuration import configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed
from tests.integration.service.exports import past
from tests.integration.service.exports.desk import Desk
from tests.support import bundles, erasing

LATER = past.AT + dt.timedelta(hours=1)
ALL = {"kinds": sorted(map(str, ExportKind))}

REPORT = configuration_write.Report(
    source="a worker",
    hop=Hop.WORKER,
    model="m",
    layer=1,
    configuration=configuration(Configured.WORKER, {"limit": 3}),
)


def explanations_of(session: Session, planted: erasing.Planted) -> list[uuid.UUID]:
    query = select(Explanation.id).where(Explanation.sample_id.in_(planted.samples))
    return list(session.scalars(query))


@pytest.fixture
def erased(desk: Desk, sequencer: Sequencer) -> int:
    """Erase one request of the period and let retention remove another; return how many entries went."""
    now = dt.datetime.now(dt.UTC)
    with desk.sessions.begin() as session:
        scope.set_tenant(session, past.TENANT)
        gone = erasing.plant(session, "gone", at=now)
        erasing.plant(session, "old", at=now - dt.timedelta(days=40))
        ids = explanations_of(session, gone)
        subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=ids, captures=[gone.capture_id])
        add_entry(session, Entry(action=Action.READ_TEXT, operation="read", subjects=subjects))
        configuration_write.note(session, [REPORT])
        past.move(session, past.AT)
    sequencer.sequence()
    with desk.sessions.begin() as session:
        scope.set_tenant(session, past.TENANT)
        erase_explanations(session, ids, reason=Reason.ERASURE, authority=seed.add_authority(session))
        configuration_write.end(session, REPORT.source)
        seed.add_period(session, 30)
        seed.add_hold(session, request="held")
    [outcome] = [one for one in run(desk.sessions, Pace(pause_seconds=0.0)) if one.explanations]
    assert outcome.explanations == 3
    with desk.sessions.begin() as session:
        scope.set_tenant(session, past.TENANT)
        past.move(session, LATER)
    sequencer.sequence()
    sequencer.sign()
    with desk.sessions() as session:
        stones = session.scalars(select(LogTombstone)).all()
        assert {one.reason for one in stones} == {"erasure", "retention"}
        return sum(one.count for one in stones)


def period(start: dt.datetime, end: dt.datetime) -> dict[str, Any]:
    return {"from": start.isoformat(), "to": end.isoformat()} | ALL


def test_a_period_of_before_over_and_after_an_erasure_verifies_and_says_how_much_went(
    desk: Desk, erased: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quarter = dt.timedelta(minutes=15)
    before = desk.made(**period(past.FROM - 9 * quarter, past.FROM - quarter))
    over = desk.made(with_text=True, **ALL)
    after = desk.made(**period(LATER - quarter, LATER + quarter))

    assert (desk.check(before).findings, desk.check(before).withheld) == ([], {})
    assert (desk.check(after).findings, desk.check(after).withheld) == ([], {})
    assert desk.check(after).tombstones == 2
    told = bundles.members_of(desk.file(after))
    for name in ("tombstones", "retention_versions", "legal_holds", "deletion_certificates", "access"):
        assert told[f"{name}.ndjson"], name
    # It began before and ended in this period; what it ran was stored before.
    assert told["configuration_periods.ndjson"]
    assert told["configuration_versions.ndjson"] == told["configuration_contents.ndjson"] == b""
    key = tmp_path / "key.pub"
    key.write_text(desk.signer.verifier.encode())
    assert verifying.run([str(desk.file(over)), "--key", str(key)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["withheld"], counts["tombstones"]) == ({"erased": erased}, 2)
    assert counts["log"].endswith(str(past.TENANT))
    assert counts["entries_of_other_kinds"] == {}
    told = bundles.members_of(desk.file(over))
    for name in ("versions", "contents", "periods"):
        assert len(told[f"configuration_{name}.ndjson"].splitlines()) == 1, name
    check_as_others_do(desk, over)
    check_changed(desk, over, tmp_path / "changed.zip")


def check_changed(desk: Desk, export: uuid.UUID, file: Path) -> None:
    """A tombstone that was removed or widened is found."""
    members = bundles.members_of(desk.file(export))
    lines = members["tombstones.ndjson"].splitlines(keepends=True)
    removed = members | {"tombstones.ndjson": b"".join(lines[1:])}
    report = check(bundles.rewrite(file, removed), desk.signer.verifier)
    assert {What.ROW_MISSING, What.FILE_CHANGED} <= {one.what for one in report.findings}
    first = json.loads(lines[0])["payload"]["leaves"][0]
    wide = lines[0].replace(b"[[%d,%d]" % tuple(first), b"[[0,%d]" % first[1])
    assert wide != lines[0]
    report = check(
        bundles.rewrite(file, members | {"tombstones.ndjson": b"".join([wide, *lines[1:]])}),
        desk.signer.verifier,
    )
    named = {one.what for one in report.findings}
    assert {What.ROW_CHANGED, What.ROW_MISSING, What.FILE_CHANGED} <= named


def check_as_others_do(desk: Desk, export: uuid.UUID) -> None:
    """proofbundle, by other authors, checks signature, tree, seal and the tombstones of later."""
    members = bundles.members_of(desk.file(export))
    proof = json.loads(members[PROOF])
    signed = foreign_checkpoint.verify_checkpoint(proof["checkpoint"], desk.signer.verifier.encode())
    assert signed["ok"] is True
    size, root = (
        signed["tree_size"],
        foreign_checkpoint.root_bytes_from_b64(proof["checkpoint"].split("\n")[2]),
    )
    with desk.sessions() as session:
        scope.set_tenant(session, past.TENANT)
        leaves = [
            entry_bytes(one.kind, one.at, one.commitment)
            for one in list_leaves(session, past.TENANT, 0, size)
        ]
    assert foreign_merkle.merkle_tree_hash(leaves) == root
    lines = members[LEAVES].splitlines()
    assert lines == leaves[proof["first"] : proof["first"] + len(lines)]
    seal = proof["seal"]

    def is_in(row: dict[str, Any], kind: str, at: str, path: list[str]) -> bool:
        commitment = commit(bytes.fromhex(row["salt"]), row["payload"])
        leaf = entry_bytes(kind, dt.datetime.fromisoformat(at), commitment)
        hashes = [bytes.fromhex(one) for one in path]
        return bool(foreign_merkle.verify_inclusion(leaf, row["entry"], size, hashes, root))

    assert is_in(seal, Kind.ACCESS, seal["at"], seal["path"])
    paths = {one["entry"]: one for one in map(json.loads, members[PATHS].splitlines())}
    stones = [json.loads(one) for one in members["tombstones.ndjson"].splitlines()]
    assert len(stones) == 2
    for stone in stones:
        if stone["entry"] in paths:
            told = paths[stone["entry"]]
            assert is_in(stone, Kind.TOMBSTONE, told["at"], told["path"])
        else:
            assert json.loads(leaves[stone["entry"]])["kind"] == Kind.TOMBSTONE
