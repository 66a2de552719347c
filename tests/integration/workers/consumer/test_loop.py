"""The worker's loop on real stores: what goes in comes out once, or in the dead-letter stream."""

import time
import uuid
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.store import engine as store_engine
from service.store.tables import CoverageMinute, Explanation, Flag, RequestName, Sample
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Hop, Stratum
from tests.support.letters import letters_of
from tests.support.waiting import wait_until
from tests.support.worker import D_MODEL, MODEL, STREAM, Bench, make_record
from workers.consumer.decoder_health import FEWEST, WINDOW
from workers.nla.decoder import Claims, GivenFacts, Reading
from workers.nla.fake import FakeDecoder, describe


def count(bench: Bench, table: type[Explanation | Sample | Flag]) -> int:
    with bench.sessions() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def coverage(bench: Bench) -> dict[str, int]:
    with bench.sessions() as session:
        rows = session.execute(
            select(CoverageMinute.counter, func.sum(CoverageMinute.count)).group_by(CoverageMinute.counter)
        )
        return {counter: int(total) for counter, total in rows}


def test_every_sample_becomes_one_explanation(bench: Bench) -> None:
    bench.add_samples(10)

    bench.drain()

    assert count(bench, Sample) == count(bench, Explanation) == 10
    assert coverage(bench) == {"rows_consumed": 10, "rows_decoded": 10}
    assert bench.metric(
        "subtext_explanations_stored_total",
        model=MODEL,
        layer="1",
        status="verified",
        selection="baseline",
        position_class="answer",
    ) == pytest.approx(10)


def test_a_sample_captured_again_is_stored_once_and_counted_as_a_duplicate(bench: Bench) -> None:
    bench.add_samples(3, captured_at=1.8e9)
    bench.drain()
    bench.add_samples(3, captured_at=1.8e9 + 60)

    bench.drain()

    assert count(bench, Explanation) == 3
    assert bench.metric("subtext_activations_duplicate_total") == 3
    assert coverage(bench) == {"rows_consumed": 6, "rows_decoded": 3, "rows_duplicate": 3}


def test_one_capture_delivered_again_is_not_counted_as_another_row(bench: Bench) -> None:
    bench.add_samples(3, captured_at=1.8e9)
    bench.drain()
    bench.add_samples(3, captured_at=1.8e9)

    bench.drain()

    assert bench.metric("subtext_activations_duplicate_total") == 3
    assert coverage(bench) == {"rows_consumed": 3, "rows_decoded": 3, "rows_redelivered": 3}


def test_a_capture_is_named_once_by_every_id_that_its_client_may_have_sent(bench: Bench) -> None:
    named = {"request_id": "x_0", "request_names": ("chatcmpl-x_0", "x"), "capture_id": "5eed" * 8}
    for position in range(3):
        bench.add(*make_record(position=position, **named))
    bench.add(*make_record(request_id="of before", capture_id=None))

    bench.drain()
    bench.add(*make_record(position=3, **named))
    bench.drain()

    with bench.sessions() as session:
        names = session.execute(select(RequestName.name, RequestName.capture_id, RequestName.request_id))
        capture_id = uuid.UUID("5eed" * 8)
        assert {tuple(row) for row in names} == {
            ("x_0", capture_id, "x_0"),
            ("chatcmpl-x_0", capture_id, "x_0"),
            ("x", capture_id, "x_0"),
            ("of before", None, "of before"),
        }


def test_a_sample_keeps_its_stratum_its_probabilities_its_scores_its_trace_its_role_and_its_subject(
    bench: Bench,
) -> None:
    bench.add(
        *make_record(
            stratum=Stratum.OPT_IN,
            probability=0.5,
            baseline_probability=0.0,
            reason="screen_probe_deception",
            scores={"anomaly": 31.5, "probe_deception": -0.25},
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            role="decode",
            subject="5" * 32,
        )
    )

    bench.drain()

    with bench.sessions() as session:
        sample = session.execute(select(Sample)).scalar_one()
    assert (sample.stratum, sample.inclusion_probability, sample.baseline_probability) == ("opt_in", 0.5, 0)
    assert (sample.reason, sample.screen_scores) == (
        "screen_probe_deception",
        {"anomaly": 31.5, "probe_deception": -0.25},
    )
    assert (sample.trace_id, sample.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (sample.role, sample.subject) == ("decode", "5" * 32)
    stored = {"model": MODEL, "layer": "1", "status": "verified", "position_class": "answer"}
    assert bench.metric("subtext_explanations_stored_total", selection="screen", **stored) == 1
    assert bench.metric("subtext_explanations_stored_total", selection="baseline", **stored) == 0


def test_rows_count_in_the_stratum_and_minute_of_their_capture(bench: Bench) -> None:
    hour_ago = time.time() - 3600
    bench.add(*make_record(position=1, captured_at=hour_ago))
    bench.add(*make_record(position=2, captured_at=hour_ago + 60, stratum=Stratum.OPT_IN))
    bench.add(*make_record(position=3, captured_at=hour_ago + 60, model="other-model"))

    bench.drain()

    with bench.sessions() as session:
        rows = session.execute(
            select(CoverageMinute.model, CoverageMinute.stratum, CoverageMinute.minute)
            .where(CoverageMinute.counter == "rows_consumed")
            .order_by(CoverageMinute.minute, CoverageMinute.stratum)
        )
        found = [(model, stratum, int(minute.timestamp())) for model, stratum, minute in rows]
    first = int(hour_ago // 60) * 60
    assert found == [
        (MODEL, "uniform", first),
        (MODEL, "opt_in", first + 60),
        ("other-model", "uniform", first + 60),
    ]


class LosesOneAnswer(Session):
    """Commits, and the answer to the first commit of rows gets lost on the way."""

    lost = True  # until a test wants it to happen

    def commit(self) -> None:
        super().commit()
        if not LosesOneAnswer.lost:
            LosesOneAnswer.lost = True
            raise OperationalError("COMMIT", None, psycopg.OperationalError("the connection is lost"))


def test_a_commit_whose_answer_is_lost_counts_once(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = partial(sessionmaker, class_=LosesOneAnswer, expire_on_commit=False)
    monkeypatch.setattr(store_engine, "session_factory", sessions)
    bench = make_bench()
    bench.add_samples(4)
    LosesOneAnswer.lost = False

    bench.drain()

    assert LosesOneAnswer.lost
    assert count(bench, Explanation) == 4
    assert coverage(bench) == {"rows_consumed": 4, "rows_decoded": 4, "rows_redelivered": 4}


class TrimmingDecoder(FakeDecoder):
    """While it reads, the stream loses what is being read."""

    trim: Callable[[], object] | None = None

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        if self.trim is not None:
            self.trim()
        return super().read(vectors, given)


def test_rows_that_were_trimmed_while_they_were_read_are_told(make_bench: Callable[..., Bench]) -> None:
    decoder = TrimmingDecoder()
    bench = make_bench(decoder)
    decoder.trim = lambda: bench.client.xtrim(STREAM, maxlen=1, approximate=False)
    bench.add_samples(3)

    bench.drain()

    assert coverage(bench) == {"rows_consumed": 3, "rows_decoded": 3, "rows_trimmed_but_read": 2}


def test_the_same_sample_twice_in_one_batch_is_stored_once(bench: Bench) -> None:
    bench.add(*make_record(position=1))
    bench.add(*make_record(position=1))

    bench.drain()

    assert count(bench, Explanation) == 1
    assert bench.dead_letters() == []


def _truncated() -> tuple[bytes, bytes]:
    header, vector = make_record()
    return header, vector[:-3]


def _short_header() -> tuple[bytes, bytes]:
    header, vector = make_record()
    return header[: len(header) // 2], vector


def _nan() -> tuple[bytes, bytes]:
    vector = np.full(D_MODEL, np.nan, "<f4").tobytes()
    header, _ = make_record(checksum=record.checksum(vector))
    return header, vector


def _zero() -> tuple[bytes, bytes]:
    vector = np.zeros(D_MODEL, "<f4").tobytes()
    header, _ = make_record(checksum=record.checksum(vector))
    return header, vector


REASONS = {"oversized_key": "oversized", "position_out_of_range": "bad_field", "no_time": "bad_field"}
BAD: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "bad_length": _truncated,
    "malformed_header": _short_header,
    "wrong_version": lambda: make_record(v=2),
    "not_finite": _nan,
    "oversized": lambda: make_record(request_id="x" * 5000),
    # Within the header's limit; as an index key PostgreSQL would refuse it every time it is tried.
    "oversized_key": lambda: make_record(request_id=token_hex(1500)),
    "position_out_of_range": lambda: make_record(request_id="far", position=2**31),
    "no_time": lambda: make_record(captured_at=1e300),
    "bad_checksum": lambda: make_record(checksum=1),
    "bad_field": lambda: make_record(probability=0.0),
    "zero_vector": _zero,
    "wrong_decoder": lambda: make_record(layer=2),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_record_goes_to_the_dead_letters_with_its_reason_and_the_rest_goes_on(
    bench: Bench, fault: str
) -> None:
    reason = REASONS.get(fault, fault)
    bench.add(*BAD[fault]())
    bench.add(*make_record(position=5))

    bench.drain()

    assert [letter[streams.FIELD_REASON] for letter in bench.dead_letters()] == [reason.encode()]
    assert count(bench, Explanation) == 1
    assert coverage(bench)[f"dead_lettered_{reason}"] == 1
    assert coverage(bench)["rows_consumed"] == 2
    assert bench.metric("subtext_stream_dead_letters_total", stream=STREAM, reason=reason) == 1


def test_an_entry_of_another_kind_is_dead_lettered(bench: Bench) -> None:
    bench.client.xadd(STREAM, {b"surprise": b"1"})

    bench.drain()

    assert bench.dead_letters()[0][streams.FIELD_REASON] == b"missing_field"


def test_the_dead_letter_says_which_decoder_is_needed(bench: Bench) -> None:
    bench.add(*make_record(model="other-model"))

    bench.drain()

    error = bench.dead_letters()[0][b"error"].decode()
    assert "model" in error
    assert "'other-model'" in error
    assert f"'{MODEL}'" in error


class PoisonedDecoder(FakeDecoder):
    """Fails on any batch that holds the vector of position 2."""

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        if (vectors[:, 1] == 3.0).any():
            raise RuntimeError("cannot read this one")
        return super().read(vectors, given)


def test_one_poisonous_sample_does_not_stop_its_batch(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(PoisonedDecoder())
    bench.add_samples(6)

    bench.drain()

    assert count(bench, Explanation) == 5
    letters = bench.dead_letters()
    assert [letter[streams.FIELD_REASON] for letter in letters] == [b"decode_failed"]
    assert b"cannot read this one" in letters[0][b"error"]
    assert bench.metric("subtext_stream_redeliveries_total") == 4


class NotANumber(FakeDecoder):
    """Reads the known vector, whose first figure is positive, and gives no number for any other."""

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        is_known = vectors[0, 0] > 0
        return [
            reading if is_known else reading._replace(fve=float("nan"))
            for reading in super().read(vectors, given)
        ]


def test_a_fidelity_that_is_no_number_is_never_stored(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(NotANumber())
    bench.add_samples(1)

    bench.drain()

    assert count(bench, Explanation) == 0
    assert [letter[streams.FIELD_REASON] for letter in bench.dead_letters()] == [b"decode_failed"]


def test_a_dead_letter_that_redis_has_no_room_for_waits_while_the_others_go_on(bench: Bench) -> None:
    bench.loop.step()  # the group itself needs memory, too
    bench.add(*_truncated())
    bench.add_samples(3)
    bench.client.config_set("maxmemory", "1kb")
    try:
        wait_until(
            "one entry is left",
            lambda: bench.parts.queue.backlog().entries == 1,
            30,
            meanwhile=bench.loop.step,
        )
        assert count(bench, Explanation) == 3
        assert bench.dead_letters() == []
    finally:
        bench.client.config_set("maxmemory", "0")

    bench.drain()

    assert [letter[streams.FIELD_REASON] for letter in bench.dead_letters()] == [b"bad_length"]
    assert coverage(bench)["dead_lettered_bad_length"] == 1


def test_what_a_dead_worker_left_is_taken_over(make_bench: Callable[..., Bench]) -> None:
    dead, alive = make_bench(), make_bench()
    dead.add_samples(4)
    assert len(dead.parts.queue.fetch(4, 100).entries or dead.parts.queue.fetch(4, 100).entries) == 4

    alive.drain()

    assert count(alive, Explanation) == 4
    assert alive.metric("subtext_stream_redeliveries_total") == 4


def test_two_workers_share_one_stream(make_bench: Callable[..., Bench]) -> None:
    one, two = make_bench(), make_bench()
    one.add_samples(16)

    for _ in range(4):
        one.loop.step()
        two.loop.step()
    one.drain()

    assert count(one, Explanation) == 16


def test_what_a_dead_worker_held_and_the_stream_lost_is_counted_by_a_metric_alone(
    make_bench: Callable[..., Bench],
) -> None:
    dead, alive = make_bench(), make_bench()
    dead.add_samples(4)
    assert len(dead.parts.queue.fetch(4, 100).entries or dead.parts.queue.fetch(4, 100).entries) == 4
    dead.client.xtrim(STREAM, maxlen=1, approximate=False)

    wait_until(
        "the loss is noticed",
        lambda: alive.metric("subtext_stream_trimmed_pending_total") == 3,
        30,
        meanwhile=alive.loop.step,
    )
    alive.drain()

    assert coverage(alive) == {"rows_consumed": 1, "rows_decoded": 1}


def bombs(_: NDArray[np.float32]) -> str:
    return "talks of a bomb"


def test_a_flag_needs_two_positions(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add(*make_record(position=1))
    bench.drain()
    assert count(bench, Flag) == 0
    bench.add(*make_record(position=2))

    bench.drain()

    with bench.sessions() as session:
        flag = session.execute(select(Flag)).scalar_one()
    assert (flag.concept, flag.severity, flag.request_id) == ("bombs", "critical", "request-1")
    assert (flag.positions_matched, flag.positions_required, flag.positions_verified) == (2, 2, 2)
    assert flag.false_positive_rate is None
    assert (
        bench.metric(
            "subtext_concept_flags_total", model=MODEL, concept="bombs", severity="critical", status="lead"
        )
        == 1
    )


def test_a_flag_never_crosses_captures_of_one_request_id(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    one, other = "1" * 32, "2" * 32
    for capture_id in (one, other, None):
        bench.add(*make_record(position=1, capture_id=capture_id))
    bench.drain()

    assert count(bench, Explanation) == 3
    assert bench.metric("subtext_activations_duplicate_total") == 0
    assert count(bench, Flag) == 0
    bench.add(*make_record(position=2, capture_id=other))
    bench.drain()

    with bench.sessions() as session:
        flag = session.execute(select(Flag)).scalar_one()
    assert (flag.capture_id, flag.request_id) == (uuid.UUID(hex=other), "request-1")
    assert (flag.positions_matched, flag.positions_verified) == (2, 2)


def test_a_flag_is_raised_once_and_grows(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(9)

    bench.drain()

    with bench.sessions() as session:
        assert session.execute(select(Flag)).scalar_one().positions_matched == 9
    assert (
        bench.metric(
            "subtext_concept_flags_total", model=MODEL, concept="bombs", severity="critical", status="lead"
        )
        == 1
    )


def test_unverified_explanations_raise_no_flag(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs, fve=0.05))
    bench.add_samples(4)

    bench.drain()

    assert count(bench, Explanation) == 4
    assert count(bench, Flag) == 0


CLAIMS = Claims(
    register="an answer",
    area="medicine",
    topic=None,
    kinds=("self-harm",),
    expects=" to",
    expects_agreement=None,
    areas={"medicine": 0.8},
    kind_scores={"self-harm": 0.6},
)


def test_what_a_reading_tells_beyond_its_token_is_stored_with_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(fve_beyond_token=0.31, position_class="template", claims=CLAIMS))
    bench.add_samples(1)

    bench.drain()

    with bench.sessions() as session:
        stored = session.execute(select(Explanation)).scalar_one()
    assert (stored.fve, stored.fve_beyond_token, stored.position_class) == (0.5, 0.31, "template")
    assert (stored.candidates, stored.margin) == (1, None)
    assert stored.claims == CLAIMS._asdict() | {"kinds": ["self-harm"]}
    labels = {"model": MODEL, "layer": "1", "selection": "baseline"}
    assert bench.metric("subtext_explanation_fve_beyond_token_ratio_sum", **labels) == pytest.approx(0.31)


def test_a_decoder_that_repeats_itself_is_not_trusted_until_it_reads_again(
    make_bench: Callable[..., Bench],
) -> None:
    says = {"broken": True}
    bench = make_bench(FakeDecoder(text=lambda row: "the same" if says["broken"] else describe(row)))
    labels = {"model": MODEL, "layer": "1"}
    assert bench.metric("subtext_decoder_trusted", **labels) == 1

    bench.add_samples(FEWEST, request_id="broken")
    bench.drain()

    assert bench.metric("subtext_decoder_trusted", **labels) == 0
    assert bench.metric("subtext_decoder_health_ratio", **labels, check="commonest_text") == 1
    assert bench.metric("subtext_decoder_health_failed", **labels, check="commonest_text") == 1
    assert bench.metric("subtext_decoder_health_failed", **labels, check="well_formed") == 0

    bench.add_samples(1, request_id="meanwhile")
    bench.drain()
    says["broken"] = False
    bench.add_samples(WINDOW, request_id="recovering")
    bench.drain()
    bench.add_samples(1, request_id="after")
    bench.drain()

    assert bench.metric("subtext_decoder_trusted", **labels) == 1
    assert (verified(bench, "meanwhile"), verified(bench, "after")) == ([False], [True])


def verified(bench: Bench, request_id: str) -> list[bool]:
    query = select(Explanation.verified).join(Sample, Sample.id == Explanation.sample_id)
    with bench.sessions() as session:
        return list(session.scalars(query.where(Sample.request_id == request_id)))


def test_the_screens_choice_says_nothing_about_the_decoders_health(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(FakeDecoder(text=lambda _: "the same"))
    bench.add_samples(FEWEST, baseline_probability=0.0, reason="screen_anomaly")

    bench.drain()

    assert bench.metric("subtext_decoder_trusted", model=MODEL, layer="1") == 1


def test_nul_and_lone_surrogates_in_a_text_are_stored_as_replacements(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(FakeDecoder(text=lambda _: "a\x00b\ud800c"))
    bench.add_samples(1)

    bench.drain()

    with bench.sessions() as session:
        assert session.execute(select(Explanation.text)).scalar_one() == "a\ufffdb?c"


def test_coverage_counts_are_kept_once_however_often_they_arrive(bench: Bench) -> None:
    for total in (5, 9, 9, 7):
        counts = record.CoverageCount(
            v=1,
            source="s",
            hop=Hop.PLUGIN,
            model=MODEL,
            stratum=Stratum.OPT_OUT,
            minute=29_000_000,
            counts={"requests_seen": total},
        )
        bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: record.encode_coverage(counts)})
    unstorable: tuple[dict[str, Any], ...] = (
        {"source": token_hex(2000)},
        {"counts": {"a\x00b": 1}},
        {"counts": {"requests_seen": 2**63}},
        {"counts": {str(number): 1 for number in range(1000)}},
        {"minute": 2**60},
        {"stratum": "made up"},
        {"stratum": "x" * 5000},
    )
    for change in unstorable:
        bad = msgspec.structs.replace(counts, **change)
        bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: record.encode_coverage(bad)})
    bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: b"garbage"})

    bench.parts.intake.step(block_ms=50)
    bench.parts.intake.step(block_ms=50)

    assert coverage(bench) == {"requests_seen": 9}
    with bench.sessions() as session:
        assert session.execute(select(CoverageMinute.stratum)).scalar_one() == "opt_out"
    assert len(letters_of(bench.client, streams.COVERAGE_STREAM)) == 1 + len(unstorable)
