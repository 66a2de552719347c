"""Kept vectors in a real store: under the logins of a deployment, with keys that come and go."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import Engine, exists, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from service.store import identity
from service.store.engine import create_engine, session_factory
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.vectors import keys, rows
from service.store.vectors.sealing import DataKey, SealingError, WrappingKey
from service.store.vectors.tables import Vector, VectorKey
from tests.integration.service import seed

Sessions = sessionmaker[Session]
WRAPPING = WrappingKey(b"w" * 32)
TENANT = scope.DEFAULT_ID
ACME = identity.tenant_id("acme")
VALUES = bytes(range(64))


def new_vector(**changes: object) -> rows.NewVector:
    fields: dict[str, object] = {
        "sample_id": uuid.uuid4(),
        "captured_at": seed.START,
        "dtype": "float32",
        "d_model": 16,
        "values": VALUES,
        "expires_at": seed.START + dt.timedelta(days=7),
    }
    return rows.NewVector(**(fields | changes))  # type: ignore[arg-type]  # of the test's own


def keep(session: Session, *new: rows.NewVector, tenant: uuid.UUID = TENANT) -> DataKey:
    scope.set_tenant(session, tenant)
    key = keys.key_in_use(session, tenant, WRAPPING)
    rows.add_vectors(session, tenant, key, new)
    return key


def stored(session: Session, new: rows.NewVector) -> Vector:
    found = rows.get_vector(session, new.sample_id, new.captured_at)
    assert found is not None
    return found


def test_a_workers_login_keeps_a_vector_that_an_owner_opens(sessions: Sessions, writer_url: str) -> None:
    new = new_vector()
    writer = create_engine(writer_url)
    try:
        for _ in range(2):  # a redelivered batch changes nothing
            with session_factory(writer).begin() as session:
                keep(session, new)
    finally:
        writer.dispose()

    with sessions() as session:
        vector = stored(session, new)
        assert VALUES not in vector.ciphertext
        assert vector.tenant_id == TENANT
        assert rows.opened(session, vector, WRAPPING) == VALUES
        assert len(keys.list_keys(session)) == 1


def test_a_ciphertext_passes_for_no_other_sample_and_no_other_tenant(sessions: Sessions) -> None:
    first, second, of_acme = new_vector(), new_vector(), new_vector()
    with sessions.begin() as session:
        keep(session, first, second)
        keep(session, of_acme, tenant=ACME)
    with sessions.begin() as session:
        one, other = stored(session, first), stored(session, second)
        one.nonce, one.ciphertext = other.nonce, other.ciphertext
        other.tenant_id = ACME

    with sessions() as session:
        for changed in (first, second):
            with pytest.raises(SealingError, match="does not open"):
                rows.opened(session, stored(session, changed), WRAPPING)
        assert rows.opened(session, stored(session, of_acme), WRAPPING) == VALUES


def test_a_key_of_another_tenant_or_another_file_opens_nothing(sessions: Sessions) -> None:
    new = new_vector()
    with sessions.begin() as session:
        key = keep(session, new)
        keep(session, new_vector(), tenant=ACME)

    with sessions() as session:
        with pytest.raises(SealingError, match="SUBTEXT_VECTORS_KEY_FILE"):
            rows.opened(session, stored(session, new), WrappingKey(b"o" * 32))
        moved = update(VectorKey).where(VectorKey.id == key.id)
        session.execute(moved.values(tenant_id=ACME, retired_at=func.now()))
        session.expire_all()
        with pytest.raises(SealingError, match="does not unwrap"):
            rows.opened(session, stored(session, new), WRAPPING)


def test_after_a_rotation_the_old_key_opens_and_the_new_one_seals(sessions: Sessions) -> None:
    before, after = new_vector(), new_vector()
    with sessions.begin() as session:
        old = keep(session, before)
        made = keys.rotate(session, TENANT, WRAPPING)
        assert keep(session, after).id == made

    with sessions() as session:
        states = {key.id: keys.state_of(key) for key in keys.list_keys(session, TENANT)}
        assert states == {old.id: "retired", made: "in use"}
        for new, key_id in ((before, old.id), (after, made)):
            vector = stored(session, new)
            assert vector.key_id == key_id
            assert rows.opened(session, vector, WRAPPING) == VALUES


def test_a_destroyed_key_takes_its_tenants_vectors_with_it_and_nobody_elses(sessions: Sessions) -> None:
    gone, of_acme = new_vector(), new_vector()
    with sessions.begin() as session:
        key = keep(session, gone)
        keep(session, of_acme, tenant=ACME)
    with sessions.begin() as session:
        keys.rotate(session, TENANT, WRAPPING)
        assert key.id in keys.destroy(session, TENANT)
        assert keys.destroy(session, TENANT) == []

    with sessions() as session:
        assert session.scalars(select(VectorKey.wrapped).where(VectorKey.tenant_id == TENANT)).all() == [
            None,
            None,
        ]
        with pytest.raises(SealingError, match="was destroyed at"):
            rows.opened(session, stored(session, gone), WRAPPING)
        assert rows.opened(session, stored(session, of_acme), WRAPPING) == VALUES
        with pytest.raises(keys.NoKeyError, match="subtext vectors rotate"):
            keep(session, new_vector())
        keys.rotate(session, TENANT, WRAPPING)
        again = new_vector()
        keep(session, again)
        assert rows.opened(session, stored(session, again), WRAPPING) == VALUES


def test_what_is_over_goes_in_batches_and_what_is_held_stays(sessions: Sessions) -> None:
    with sessions.begin() as session:
        held = seed.add_explanation(session, seed.add_model(session)).sample_id
        over = [new_vector(expires_at=seed.START) for _ in range(3)]
        keep(session, new_vector(sample_id=held, expires_at=seed.START), *over, new_vector())
    spared = Sample.id == held

    with sessions.begin() as session:
        assert [rows.expire(session, seed.START, 2, spared=spared) for _ in range(3)] == [2, 1, 0]
        assert session.scalar(select(func.count()).select_from(Vector)) == 2
        assert session.scalar(select(exists().where(Vector.sample_id == held)))
        assert rows.expire(session, seed.START, 2) == 1


def test_an_erased_samples_vectors_go_whatever_the_capture(sessions: Sessions) -> None:
    erased, kept = new_vector(), new_vector()
    again = new_vector(sample_id=erased.sample_id, captured_at=seed.START + dt.timedelta(seconds=1))
    with sessions.begin() as session:
        keep(session, erased, again, kept)

        assert rows.delete_for(session, []) == 0
        assert rows.delete_for(session, [erased.sample_id, uuid.uuid4()]) == 2
        assert session.scalars(select(Vector.sample_id)).all() == [kept.sample_id]


def test_ciphertexts_are_not_compressed(engine: Engine) -> None:
    query = text(
        "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'vectors'::regclass"
        " AND attname = 'ciphertext'"
    )

    with engine.connect() as connection:
        assert connection.execute(query).scalar_one() == "e"
