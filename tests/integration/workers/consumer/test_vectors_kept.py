"""A worker under its own login keeps the vectors that its file names, and loses no reading by it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.engine import create_engine, session_factory
from service.store.tables import Explanation
from service.store.tenants import scope
from service.store.vectors import keys, rows, sealing
from service.store.vectors.tables import Vector
from tests.support.worker import D_MODEL, MODEL, Bench

CAPTURE = "5eed" * 8


@pytest.fixture
def files(kept_vectors: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return kept_vectors(MODEL)


@pytest.fixture
def owner(database_url: str) -> Iterator[Session]:
    made = create_engine(database_url)
    with session_factory(made)() as session:
        yield session
    made.dispose()


def counted(bench: Bench, what: str, **labels: str) -> float:
    return bench.metric(f"subtext_vectors_{what}_total", model=MODEL, **labels)


def test_what_is_kept_is_what_the_decoder_got_and_only_of_whom_the_file_names(
    make_bench: Callable[..., Bench], files: dict[str, Path], owner: Session
) -> None:
    bench = make_bench(**files)
    bench.add_samples(2, capture_id=CAPTURE)
    bench.add_samples(2, capture_id=CAPTURE, tenant="acme")
    bench.drain()

    wrapping = sealing.parse(files["vectors_key_file"].read_text(), named="")
    kept = {one.sample_id: one for one in owner.scalars(select(Vector))}
    explained = owner.scalars(select(Explanation).where(Explanation.tenant_id == scope.DEFAULT_ID)).all()
    assert owner.scalar(select(func.count()).select_from(Explanation)) == 4
    assert {(one.sample_id, one.captured_at) for one in explained} == {
        (one.sample_id, one.captured_at) for one in kept.values()
    }
    assert len(kept) == 2
    for vector in kept.values():
        values = np.frombuffer(rows.opened(owner, vector, wrapping), "<f4")
        assert (vector.dtype, vector.d_model, values[0]) == ("float32", D_MODEL, -1.0)
        assert (vector.expires_at - vector.captured_at).days == 7
    assert counted(bench, "stored") == 2
    assert counted(bench, "stored_bytes") == 2 * D_MODEL * 4


def test_without_a_file_nothing_is_kept_and_nothing_asked(
    bench: Bench, owner: Session, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE vectors, vector_keys")  # would be met by any statement
    bench.add_samples(2)
    bench.drain()

    assert owner.scalar(select(func.count()).select_from(Explanation)) == 2
    assert bench.metric("subtext_vectors_stored_total", model=MODEL) == 0


def test_no_reading_is_lost_to_a_destroyed_key_a_wrong_file_or_a_table_that_is_refused(
    make_bench: Callable[..., Bench], files: dict[str, Path], owner: Session, database_url: str
) -> None:
    bench = make_bench(**files)
    bench.add_samples(1)
    bench.drain()
    keys.destroy(owner, scope.DEFAULT_ID)
    owner.commit()
    bench.add_samples(1, capture_id="0" * 32)
    bench.drain()
    other = sealing.WrappingKey(b"o" * 32)
    keys.rotate(owner, scope.DEFAULT_ID, other)
    owner.commit()
    bench.add_samples(1, capture_id="1" * 32)
    bench.drain()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON vector_keys FROM subtext_writer")
    bench.add_samples(1, capture_id="2" * 32)
    bench.drain()

    assert owner.scalar(select(func.count()).select_from(Explanation)) == 4
    assert counted(bench, "stored") == 1
    for reason in ("no_key", "key_refused", "store_refused"):
        assert counted(bench, "skipped", reason=reason) == 1, reason
    assert bench.dead_letters() == []
