"""What a worker stored is read again from the vectors that it kept, as the owner of the store does it."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import AccessEntry, Purpose
from service.store.engine import create_engine, session_factory
from service.store.tables import Explanation, Sample
from service.store.tenants import scope
from service.store.vectors import keys, rows
from tests.support.worker import MODEL, Bench
from workers.nla.decoder import Decoder
from workers.nla.fake import FakeDecoder, describe
from workers.reread import command
from workers.reread.again import OpenDecoder
from workers.reread.command import Asked
from workers.reread.compare import Outcome, Status, exit_status
from workers.reread.found import Wanted

CAPTURE = "5eed" * 8
REQUEST = Wanted(request="request-1")
POSITIONS = 3


@pytest.fixture
def owner(database_url: str) -> Iterator[sessionmaker[Session]]:
    made = create_engine(database_url)
    yield session_factory(made)
    made.dispose()


@pytest.fixture
def files(kept_vectors: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return kept_vectors(MODEL)


@pytest.fixture
def stored(make_bench: Callable[..., Bench], files: dict[str, Path]) -> Bench:
    bench = make_bench(**files)
    bench.add_samples(POSITIONS, capture_id=CAPTURE, request_id="request-1")
    bench.drain()
    return bench


def opening(text: Callable[[NDArray[np.float32]], str] = describe) -> OpenDecoder:
    def open_decoder(digest: str, candidates: int) -> Decoder:
        decoder = FakeDecoder(text=text)
        assert (digest, candidates) == (decoder.identity.digest, 1)
        return decoder

    return open_decoder


@pytest.mark.usefixtures("stored")
def test_a_request_a_sample_and_an_explanation_are_read_again_to_the_same(
    owner: sessionmaker[Session], files: dict[str, Path]
) -> None:
    with owner() as session:
        explanation = session.scalars(select(Explanation)).first()
    assert explanation is not None

    for wanted, count in (
        (REQUEST, POSITIONS),
        (Wanted(sample=explanation.sample_id), 1),
        (Wanted(explanation=explanation.id), 1),
    ):
        answer = command.run(owner, files["vectors_key_file"], Asked(wanted, "default"), opening())
        assert [one.status for one in answer.outcomes] == [Status.IDENTICAL] * count
        assert exit_status(answer.outcomes) == 0
    with owner() as session:
        assert session.scalars(select(AccessEntry)).all() == []  # no text was shown


@pytest.mark.usefixtures("stored")
def test_a_text_that_is_another_now_is_found_and_shown_for_a_purpose_only_with_an_entry(
    owner: sessionmaker[Session], files: dict[str, Path]
) -> None:
    def other_for_the_first(vector: NDArray[np.float32]) -> str:
        return "another" if vector[1] == 1 else describe(vector)

    asked = Asked(REQUEST, "default", Purpose.AUDIT, "ticket 7")
    answer = command.run(owner, files["vectors_key_file"], asked, opening(other_for_the_first))

    assert sorted(one.status for one in answer.outcomes) == ["differs", "identical", "identical"]
    assert exit_status(answer.outcomes) == 1
    with owner() as session:
        (entry,) = session.scalars(select(AccessEntry))
        assert (entry.action, entry.operation, entry.purpose) == ("read_text", "reread", "audit")
        assert set(entry.subject_ids) == {one.recorded.explanation_id for one in answer.outcomes}
        assert entry.capture_ids == [uuid.UUID(hex=CAPTURE)]
        assert entry.details == {"identical": 2, "differs": 1, "cannot": 0}


@pytest.mark.usefixtures("stored")
def test_what_cannot_be_read_again_says_why(owner: sessionmaker[Session], files: dict[str, Path]) -> None:
    def outcomes() -> dict[int, Outcome]:
        answer = command.run(owner, files["vectors_key_file"], Asked(REQUEST, "default"), opening())
        with owner() as session:
            query = select(Explanation.id, Sample.position).join(Sample, Sample.id == Explanation.sample_id)
            positions = {row.id: row.position for row in session.execute(query)}
        return {positions[one.recorded.explanation_id]: one for one in answer.outcomes}

    with owner.begin() as session:
        first, second = session.scalars(select(Sample).order_by(Sample.position).limit(2))
        rows.delete_for(session, [first.id])
        vector = rows.get_vector(session, second.id, second.captured_at)
        assert vector is not None
        vector.captured_at += dt.timedelta(microseconds=1)
        explanation = session.scalars(select(Explanation).where(Explanation.sample_id == second.id)).one()
        explanation.captured_at = vector.captured_at
    found = outcomes()
    assert "not in the store" in found[0].why
    assert "does not open" in found[1].why
    assert [found[place].status for place in range(POSITIONS)] == ["cannot", "cannot", "identical"]
    assert exit_status(list(found.values())) == 2

    with owner.begin() as session:
        keys.destroy(session, scope.DEFAULT_ID)
    assert "was destroyed" in outcomes()[2].why


@pytest.mark.usefixtures("stored")
def test_what_is_not_there_is_not_read_and_neither_is_it_by_a_workers_login(
    owner: sessionmaker[Session], files: dict[str, Path], writer_url: str
) -> None:
    unknown, asked = Asked(Wanted(explanation=uuid.uuid4()), "default"), Asked(REQUEST, "default")
    with pytest.raises(ValueError, match="no such explanation of tenant 'default'"):
        command.run(owner, files["vectors_key_file"], unknown, opening())
    writer = create_engine(writer_url)
    try:
        with pytest.raises(Exception, match="permission denied"):
            command.run(session_factory(writer), files["vectors_key_file"], asked, opening())
    finally:
        writer.dispose()
