"""Erased explanations leave nothing but tombstones, and a log that verifies."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from service.erasure.rows import Erased, erase_explanations, forget_captures
from service.evidence.tombstones import Reason
from service.evidence.verify import What
from service.store import identity
from service.store.access.tables import AccessEntry, AccessSubject, Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.evidence.tables import LogTombstone
from service.store.tables import Explanation, Flag, Incident, RequestName, Sample
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from service.store.vectors.sealing import NONCE_BYTES
from service.store.vectors.tables import Vector
from service.store.write.decoders import NewDecoder
from tests.integration.service import seed
from tests.support.erasing import START, Log, Planted, plant

Sessions = sessionmaker[Session]


@pytest.fixture
def authority(sessions: Sessions) -> uuid.UUID:
    """An erasure that may be carried out."""
    with sessions.begin() as session:
        return seed.add_authority(session)


def explanations_of(session: Session, planted: Planted) -> list[uuid.UUID]:
    query = select(Explanation.id).where(Explanation.sample_id.in_(planted.samples))
    return list(session.scalars(query.order_by(Explanation.captured_at)))


def vector(sample: uuid.UUID) -> Vector:
    """Return a kept vector of a sample that was captured at any time."""
    sealed = {"key_id": uuid.uuid4(), "nonce": bytes(NONCE_BYTES), "ciphertext": bytes(48)}
    return Vector(
        sample_id=sample, captured_at=START, dtype="float32", d_model=8, expires_at=START, **sealed
    )


def read_by_somebody(session: Session, *planted: Planted) -> None:
    """Enter that the texts were read, and that somebody asked who had read the first."""
    ids = [one for each in planted for one in explanations_of(session, each)]
    captures = [one.capture_id for one in planted]
    subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=ids, captures=captures)
    add_entry(session, Entry(action=Action.READ_TEXT, operation="list_explanations", subjects=subjects))
    asked = {"subject": str(ids[0]), "limit": 5}
    add_entry(session, Entry(action=Action.LOG_READ, operation="list_access_log", details=asked))


def test_a_request_goes_with_all_that_stands_on_it_and_the_log_verifies(
    sessions: Sessions, log: Log, authority: uuid.UUID
) -> None:
    with sessions.begin() as session:
        gone, kept = plant(session, "gone"), plant(session, "kept")
        read_by_somebody(session, gone, kept)
        session.add_all(vector(one) for one in (gone.samples[0], kept.samples[0]))
        ids = explanations_of(session, gone)
    log.sign()

    with sessions.begin() as session:
        erased = erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
    assert log.report().findings == []  # also before the tombstone has its place
    log.sign()

    assert erased == Erased(
        explanations=3, samples=3, concept_matches=3, request_names=2, flags=1, incidents=1,
        incident_events=1, vectors=1, access_entries=2, log_entries=3 + 1 + 1 + 2,
    )  # fmt: skip
    report = log.report()
    assert (report.findings, report.erased, report.tombstones) == ([], erased.log_entries, 1)
    with sessions() as session:
        assert session.scalars(select(Sample.request_id).distinct()).all() == ["kept"]
        assert session.scalars(select(Vector.sample_id)).all() == [kept.samples[0]]
        assert session.scalars(select(Flag.request_id)).all() == ["kept"]
        shown, asked = session.scalars(select(AccessEntry).order_by(AccessEntry.seq))
        assert set(shown.subject_ids) == set(explanations_of(session, kept))
        assert (shown.subjects_total, shown.capture_ids) == (6, [kept.capture_id])
        assert asked.details == {"limit": 5}
        named = session.scalars(select(AccessSubject.subject_id))
        assert set(named) == {*shown.subject_ids, kept.capture_id}
        stone = session.scalars(select(LogTombstone)).one()
        assert (stone.reason, stone.authority, stone.count) == ("erasure", authority, erased.log_entries)

    with sessions.begin() as session:
        again = erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
    assert again == Erased()


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "named-alone"])
def test_a_capture_of_any_tenant_leaves_the_access_log_by_whatever_it_was_named(
    sessions: Sessions, log: Log, *, is_read: bool
) -> None:
    acme = identity.tenant_id("acme")
    decoder = NewDecoder(
        model="m", d_model=8, name="m-l1", digest="e" * 64, layer=1, fve_baseline=0.5, shuffled_fve_p95=0.1,
        calibration_n=9, card={}, tenant="acme",
    )  # fmt: skip
    with sessions.begin() as session:
        session.add(Tenant(id=acme, name="acme"))
        session.flush()
        scope.set_tenant(session, acme)
        planted = plant(session, "gone", decoder=decoder, tenant=acme)
        key = session.scalars(select(RequestName.capture).where(RequestName.name == "gone")).one()
        assert key != planted.capture_id  # so an entry may have either
        ids = explanations_of(session, planted)
        for capture in (planted.capture_id, key):
            captures = Subjects(kind=SubjectKind.EXPLANATION, ids=[], captures=[capture])
            add_entry(session, Entry(action=Action.READ_TEXT, operation="get", subjects=captures))
        by_id = {"subject": str(planted.capture_id)}
        add_entry(session, Entry(action=Action.LOG_READ, operation="list_access_log", details=by_id))
        authority = seed.add_authority(session)
    log.sign()

    with sessions.begin() as session:
        scope.set_tenant(session, acme)
        if is_read:
            erased = erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
        else:
            erased = forget_captures(session, [key], authority=authority)

    assert (erased.access_entries, erased.request_names) == (3, 2)
    assert {planted.capture_id, key} <= set(erased.ids)
    with sessions() as session:
        left = session.scalars(select(AccessEntry).where(AccessEntry.tenant_id == acme)).all()
        assert [one.capture_ids for one in left if one.action == Action.READ_TEXT] == [[], []]
        assert not any("subject" in one.details for one in left)


def test_what_has_no_place_in_the_log_yet_stays_until_it_has_one(
    sessions: Sessions, log: Log, authority: uuid.UUID
) -> None:
    with sessions.begin() as session:
        early = plant(session, "early")
    log.sign()
    with sessions.begin() as session:
        late = plant(session, "late")
        ids = [*explanations_of(session, early), *explanations_of(session, late)]

    with sessions.begin() as session:
        first = erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
    log.sign()
    with sessions.begin() as session:
        second = erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
    log.sign()

    assert [(one.explanations, one.waiting) for one in (first, second)] == [(3, 1), (3, 0)]
    assert log.report().findings == []


def test_a_flag_that_others_still_support_is_counted_again(
    sessions: Sessions, log: Log, authority: uuid.UUID
) -> None:
    with sessions.begin() as session:
        planted = plant(session, "partly", positions=4)
        first, *others = explanations_of(session, planted)
    log.sign()

    with sessions.begin() as session:
        erased = erase_explanations(session, [first], reason=Reason.ERASURE, authority=authority)
    log.sign()
    assert (erased.flags, erased.flags_changed, erased.incidents) == (0, 1, 0)
    with sessions() as session:
        flag = session.scalars(select(Flag)).one()
        assert (flag.positions_matched, flag.positions_verified) == (3, 3)
        assert flag.first_captured_at == START + dt.timedelta(milliseconds=1)
    assert log.report().findings == []

    with sessions.begin() as session:
        erase_explanations(session, others, reason=Reason.ERASURE, authority=authority)
    log.sign()
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Flag)) == 0
        assert session.scalar(select(func.count()).select_from(Incident)) == 0
    assert log.report().findings == []


def test_a_row_that_was_tampered_with_is_found_after_its_erasure_too(
    sessions: Sessions, log: Log, authority: uuid.UUID
) -> None:
    with sessions.begin() as session:
        ids = explanations_of(session, plant(session, "changed"))
    log.sign()
    with sessions.begin() as session:
        session.execute(text("UPDATE explanations SET text = 'another'"))

    with sessions.begin() as session:
        erase_explanations(session, ids, reason=Reason.ERASURE, authority=authority)
    log.sign()

    assert {one.what for one in log.report().findings} == {What.ROW_DELETED}
