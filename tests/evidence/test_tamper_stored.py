"""Changes by SQL as the owner of a real store, with its triggers off: `verify` finds and names each."""

import datetime as dt
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.dialects.postgresql.ranges import MultiRange, Range
from sqlalchemy.orm import Session

from service.erasure.rows import erase_explanations
from service.evidence import folder, note
from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason as Erasing
from service.evidence.tombstones import tombstone_payload
from service.evidence.verify import Report, What, origin_of, verify
from service.incidents.lifecycle import Reason, State
from service.sequencer.sequencer import Sequencer
from service.store import identity, triage
from service.store.access.tables import Action
from service.store.access.write import Entry, add_entry
from service.store.configuration import write as configuration_write
from service.store.configuration.tables import ConfigurationPeriod, ConfigurationVersion
from service.store.engine import create_engine, session_factory
from service.store.evidence.append import append
from service.store.evidence.log import StoredLog
from service.store.evidence.tables import LogTombstone
from service.store.tables import ApiKey, Explanation, Incident, Sample
from service.store.tenants import scope
from tests.integration.service import seed
from tests.support.worker import Bench, make_record
from workers.nla.fake import FakeDecoder

TENANT = identity.tenant_id(identity.DEFAULT_TENANT)
SIGNER = note.generate("subtext.example")
OF_OTHERS = {
    What.COSIGNATURE_MISSING, What.SPLIT_VIEW, What.POSTDATED, What.TIMESTAMP_MISSING,
    What.TIMESTAMP_UNREADABLE,
}  # fmt: skip
"""What is tried with the witness and the authority of timestamps."""
TIMES = 2
"""How often each change is tried, on other rows."""
PADDING = 260
"""Entries of a later version, so that the tree has a stored node."""
REQUESTS = 4


@dataclass(frozen=True)
class Stored:
    engine: Engine
    notes: Sequence[str]

    def check(self, session: Session) -> Report:
        scope.set_tenant(session, TENANT)
        log = StoredLog(session, TENANT)
        return verify(log, self.notes, SIGNER.verifier, origin_of(SIGNER.name, TENANT))


@pytest.fixture
def stored(
    make_bench: Callable[..., Bench], database_url: str, sequencer_url: str, tmp_path: Path
) -> Iterator[Stored]:
    """A store as worker, triage and sequencer leave it: most is signed, the newest entries wait."""
    engine, sequencing = create_engine(database_url), create_engine(sequencer_url)
    sequencer = Sequencer(session_factory(sequencing), SIGNER, tmp_path)
    bench = make_bench(FakeDecoder(text=lambda _: "talks of a bomb"))
    for number in range(REQUESTS):
        bench.add_samples(2, request_id=f"r{number}")
        bench.drain()
        bench.add(*make_record(position=9, request_id=f"r{number}"))  # the flag's counts change
        bench.drain()
        with session_factory(engine).begin() as session:
            append(session, "later", [{"number": one} for one in range(PADDING // REQUESTS)])
        sequencer.sequence()
        sequencer.sign()
    with session_factory(engine).begin() as session:
        erase_request(session, "r0")
    with session_factory(engine).begin() as session:
        triage_all(session)
        end_periods(session)
        add_entry(session, Entry(action=Action.EXPORT, operation="export"))
    sequencer.sequence()
    sequencer.sign()
    bench.add_samples(2, request_id="waits")
    bench.drain()
    sequencing.dispose()
    yield Stored(engine, folder.read(tmp_path, TENANT).whole)
    engine.dispose()


def erase_request(session: Session, request_id: str) -> None:
    scope.set_tenant(session, TENANT)
    of_request = select(Explanation.id).join(Sample, Sample.id == Explanation.sample_id)
    ids = session.scalars(of_request.where(Sample.request_id == request_id)).all()
    authority = seed.add_authority(session)
    erased = erase_explanations(session, ids, reason=Erasing.ERASURE, authority=authority)
    assert (erased.explanations, erased.waiting) == (len(ids), 0)


def triage_all(session: Session) -> None:
    key = ApiKey(id=uuid.uuid4(), name="reviewer", secret_sha256=bytes(32), scopes=[])
    session.add(key)
    session.flush()
    for incident in session.scalars(select(Incident)).all():
        change = triage.Change(
            incident.version + 1, State.CONFIRMED, Reason.SEEN_IN_REQUEST, None, {"bombs": True}
        )
        triage.apply(session, incident, change, triage.Actor(key.id, key.name))


def end_periods(session: Session) -> None:
    """End what the worker runs, and a period that one of before the log's time has begun."""
    version = session.scalars(select(ConfigurationVersion).limit(1)).one()
    began = func.now() - dt.timedelta(hours=3)
    session.execute(
        insert(ConfigurationPeriod).values(
            version_id=version.id,
            kind=version.kind,
            model="m",
            source="of before",
            hop="worker",
            began_at=began,
            last_seen_at=func.now(),
        )
    )
    for source in session.scalars(select(ConfigurationPeriod.source).distinct()).all():
        configuration_write.end(session, source)


class Change(NamedTuple):
    """What somebody does to the store, and what has to be said of it."""

    statement: str
    """Its names in ``PICKED`` stand for a random row, and ``$at`` for a random number."""
    expected: frozenset[What]


def change(statement: str, *expected: What) -> Change:
    return Change(statement, frozenset(expected))


def one_of(table: str, key: str = "id", having: str = "log_salt IS NOT NULL") -> str:
    """Return the condition for a random row, of those that have an entry."""
    count = f"(SELECT count(*) FROM {table} WHERE {having})"  # noqa: S608  # names are ours
    picked = f"SELECT {key} FROM {table} WHERE {having} ORDER BY {key}"  # noqa: S608
    return f"{key} = ({picked} LIMIT 1 OFFSET mod($at, {count}))"


def edited(table: str, assignment: str, key: str = "id", *, where: str | None = None) -> Change:
    condition = one_of(table, key) if where is None else where
    return change(f"UPDATE {table} SET {assignment} WHERE {condition}", What.ROW_CHANGED)  # noqa: S608


def deleted(table: str, key: str = "id") -> Change:
    return change(f"DELETE FROM {table} WHERE {one_of(table, key)}", What.ROW_DELETED)  # noqa: S608


def copied(table: str, assignments: str) -> Change:
    """Insert a copy of a row under another key, with a salt of its own."""
    changed = f"jsonb_populate_record(one, jsonb_build_object({assignments}, 'log_salt', '\\x01'))"
    return change(
        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT copy.* FROM {table} AS one,"  # noqa: S608
        f" {changed} AS copy WHERE one.{one_of(table)}",
        What.ROW_NOT_IN_LOG,
    )


PICKED = {
    "signed": "(SELECT max(size) FROM log_checkpoints)",
    "a_leaf": "seq = mod($at, (SELECT max(size) FROM log_checkpoints))",
    "the_node": "(level, number) = (1, 0)",
    "a_batch": one_of("log_pending", having="true"),
    "a_copy": one_of("log_checkpoints", "size", having="true"),
    "a_match": one_of("concept_matches", "explanation_id", having="true"),
    "an_explanation": one_of("explanations"),
    "a_sample": one_of("samples", having="true"),
    "an_incident": one_of("incidents", having="state = 'confirmed'"),
    "a_last_event": one_of("incident_events", having="kind = 'triaged'"),
}

CHANGES = (
    # A row says another thing than when it was stored.
    edited("explanations", "text = text || '!'"),
    edited("explanations", "fve = fve + 1e-9"),
    edited("explanations", "created_at = created_at - interval '5 hours'"),
    edited("explanations", r"log_salt = '\x00'"),
    edited("samples", "token_text = token_text || ' '", where="$a_sample"),
    edited("samples", "captured_at = captured_at - interval '1 day'", where="$a_sample"),
    edited("concept_matches", "score = score / 2", where="$a_match"),
    change("DELETE FROM concept_matches WHERE $a_match", What.ROW_CHANGED),
    edited("flags", "positions_verified = positions_verified + 1"),
    edited("decoders", "fve_baseline = fve_baseline - 0.01"),
    edited("concept_versions", "definition = definition || '{\"a\": 1}'", "digest"),
    edited("incident_events", "reason = 'reconsidered'"),
    edited("access_log", "key_name = 'somebody else'"),
    edited("configuration_versions", "digest = md5(digest)"),
    edited("configuration_contents", "content = json_build_object('limit', 'another')", "version_id"),
    # The same JSON in other words has another digest.
    edited("configuration_contents", "content = (' ' || content::text)::json", "version_id"),
    edited("configuration_periods", "ended_at = ended_at + interval '1 hour'"),
    edited("configuration_periods", "version_id = version_id + 1"),
    # A row is gone, or its entry is denied.
    deleted("explanations"),
    deleted("flags"),
    deleted("access_log"),
    deleted("concept_versions", "digest"),
    deleted("configuration_contents", "version_id"),
    deleted("configuration_periods"),
    deleted("incident_events"),
    change("DELETE FROM samples WHERE $a_sample", What.ROW_DELETED),
    change("UPDATE explanations SET log_salt = NULL WHERE $an_explanation", What.ROW_DELETED),
    change("UPDATE flags SET log_trail = '{}' WHERE log_trail IS NOT NULL", What.ROW_DELETED),
    # A row that nobody stored.
    copied("access_log", "'id', gen_random_uuid(), 'seq', 1000 + $at"),
    copied("explanations", "'id', gen_random_uuid(), 'decoder_id', gen_random_uuid()"),
    copied("configuration_versions", "'id', 1000 + $at, 'digest', md5('$at')"),
    change(
        "INSERT INTO concept_versions (digest, name, version, definition, created_at)"
        " VALUES (md5('$at'), 'late', 1, '{}', now() + interval '2 days')",
        What.ROW_NOT_IN_LOG,
    ),
    # An incident stands elsewhere than its events have left it.
    change("UPDATE incidents SET state = 'dismissed' WHERE $an_incident", What.INCIDENT_CHANGED),
    change("UPDATE incidents SET severity = 'info' WHERE $an_incident", What.INCIDENT_CHANGED),
    change("UPDATE incidents SET labels = '{}' WHERE $an_incident", What.INCIDENT_CHANGED),
    change("DELETE FROM incidents WHERE $an_incident", What.INCIDENT_CHANGED),
    change("DELETE FROM incident_events WHERE $a_last_event", What.INCIDENT_CHANGED, What.ROW_DELETED),
    # A tombstone says another thing than when rows were erased, or is gone.
    edited("log_tombstones", "leaves = leaves + int8multirange(int8range($at, $at + 2))"),
    edited("log_tombstones", "leaves = int8multirange(int8range(0, 1)), count = 1"),
    edited("log_tombstones", "count = count + 1"),
    edited("log_tombstones", "reason = 'retention'"),
    edited("log_tombstones", "authority = gen_random_uuid()"),
    deleted("log_tombstones"),
    change("UPDATE log_tombstones SET tenant_id = gen_random_uuid()", What.ROW_DELETED),
    # The log itself.
    change("UPDATE log_leaves SET commitment = sha256('$at') WHERE $a_leaf", What.LEAVES_CHANGED),
    change("UPDATE log_leaves SET kind = kind || '_' WHERE $a_leaf", What.LEAVES_CHANGED),
    change("UPDATE log_leaves SET at = at + interval '1 microsecond' WHERE $a_leaf", What.LEAVES_CHANGED),
    change(
        "UPDATE log_leaves SET at = at - interval '3 hours' WHERE seq = 1 + mod($at, $signed - 1)",
        What.LEAVES_CHANGED,
        What.BACKDATED,
    ),
    change("DELETE FROM log_leaves WHERE $a_leaf", What.LEAF_MISSING),
    change(
        "INSERT INTO log_leaves (tenant_id, seq, kind, at, commitment) SELECT tenant_id, max(seq) + 1,"
        " 'explanation', max(at), sha256('$at') FROM log_leaves GROUP BY tenant_id",
        What.ROW_DELETED,
    ),
    change(
        "WITH gone AS (DELETE FROM log_leaves WHERE seq - mod($at, $signed - 1) IN (0, 1) RETURNING *)"
        " INSERT INTO log_leaves (tenant_id, seq, kind, at, commitment)"
        " SELECT tenant_id, 2 * mod($at, $signed - 1) + 1 - seq, kind, at, commitment"
        " FROM gone ORDER BY seq",
        What.LEAVES_CHANGED,
    ),
    change("UPDATE log_nodes SET hash = sha256('$at') WHERE $the_node", What.NODE_CHANGED),
    change("DELETE FROM log_nodes WHERE $the_node", What.NODE_CHANGED),
    change("INSERT INTO log_nodes (level, number, hash) VALUES (1, 9, sha256('$at'))", What.NODE_CHANGED),
    change("DELETE FROM log_pending WHERE $a_batch", What.ROW_NOT_IN_LOG),
    change(
        "INSERT INTO log_pending (kind, commitments) VALUES ('explanation', sha256('$at'))",
        What.ROW_DELETED,
    ),
    change("UPDATE log_pending SET at = at - interval '5 hours' WHERE $a_batch", What.BACKDATED),
    change("UPDATE log_pending SET kind = 'decoder' WHERE $a_batch", What.KIND_CHANGED),
    change("DELETE FROM log_checkpoints WHERE $a_copy", What.CHECKPOINT_MISSING),
    change("UPDATE log_checkpoints SET note = note || ' ' WHERE $a_copy", What.CHECKPOINT_MISSING),
)


class Forged(NamedTuple):
    """A tombstone that somebody lets the log commit to, and what has to be said of it."""

    first: str
    """Names in SQL the first of two entries that it covers; ``seq`` is an entry's."""
    expected: What
    more: int = 0
    """That it says it covers beyond those."""
    reason: Erasing = Erasing.ERASURE
    before: str = "SELECT"
    """What is done as the owner, whom no trigger keeps from it."""


FORGED = (
    Forged("SELECT min(seq) FROM log_leaves WHERE kind = 'decoder'", What.TOMBSTONE_OVER_ROW),
    Forged("SELECT max(seq) + 1 FROM log_leaves", What.TOMBSTONE_AHEAD),
    Forged("SELECT min(lower(leaves)) FROM log_tombstones", What.TOMBSTONE_MISCOUNTED, 1),
    # No period was ever set by which an entry could go.
    Forged(
        "SELECT min(seq) FROM log_leaves WHERE kind = 'access'",
        What.TOMBSTONE_NOT_DUE,
        reason=Erasing.RETENTION,
        before="DELETE FROM access_log",
    ),
)


def forge(session: Session, one: Forged) -> None:
    """Add a tombstone as the erasure does; it waits until the log has it."""
    scope.set_tenant(session, TENANT)
    authority = seed.add_authority(session)
    session.execute(text("SET LOCAL session_replication_role = replica"))
    session.execute(text("ALTER TABLE access_log DISABLE TRIGGER ALL"))  # which obeys no role
    session.execute(text(one.before))
    first = session.execute(text(one.first)).scalar_one()
    stone = {
        "id": uuid.uuid4(),
        "at": session.execute(select(func.now())).scalar_one(),
        "reason": one.reason,
        "authority": authority,
        "leaves": [(first, first + 2)],
        "count": 2 + one.more,
    }
    [salt] = append(session, Kind.TOMBSTONE, [tombstone_payload(stone)])
    stone["leaves"] = MultiRange([Range(first, first + 2)])
    session.execute(insert(LogTombstone).values(stone | {"log_salt": salt}))


def test_each_change_by_sql_is_found_and_named(stored: Stored) -> None:
    rng = random.Random(17)  # noqa: S311  # the same changes each time
    sessions = session_factory(stored.engine)
    with sessions() as session:
        before = stored.check(session)
        assert (before.findings, before.pending > 0, len(stored.notes)) == ([], True, REQUESTS + 1)
        assert before.not_in_log == {}

    for statement, expected in CHANGES * TIMES:
        sql = Template(Template(statement).safe_substitute(PICKED)).substitute(at=rng.randrange(100_000))
        with sessions() as session:  # which is rolled back
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text("ALTER TABLE access_log DISABLE TRIGGER ALL"))  # which obeys no role
            assert session.connection().exec_driver_sql(sql).rowcount > 0, sql
            found = {one.what for one in stored.check(session).findings}
        assert expected <= found, (sql, expected, found)

    for one in FORGED:
        with sessions() as session:  # which is rolled back
            forge(session, one)
            found = {each.what for each in stored.check(session).findings}
        assert one.expected in found, (one, found)

    named = frozenset[What]().union(*(one.expected for one in CHANGES), (one.expected for one in FORGED))
    # What is only in a folder is tried on an image, in test_tamper.py, and with the witness.
    of_folders = {What.CHECKPOINT_UNREADABLE, What.CHECKPOINT_OUT_OF_ORDER}
    assert named == set(What) - of_folders - OF_OTHERS
