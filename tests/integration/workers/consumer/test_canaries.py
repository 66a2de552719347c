"""A canary goes the whole way and is in nothing that tells of traffic."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select

from service.store.read import canaries
from service.store.tables import (
    Base,
    CanaryFlag,
    CanaryReading,
    ConceptMatch,
    CoverageMinute,
    Explanation,
    Flag,
    Incident,
    IncidentEvent,
    RequestName,
    Sample,
    WebhookMessage,
)
from tests.support.calibrations import calibration_of
from tests.support.worker import MODEL, Bench, drain_together, make_record
from workers.consumer.decoder_health import FEWEST, WINDOW
from workers.judge import calibration
from workers.judge.concepts import load_concepts
from workers.nla.fake import FakeDecoder

NONCE = "0f" * 16
CAPTURE = "5eed" * 8
CANARY = {"stratum": "canary", "canary": NONCE, "capture_id": CAPTURE, "request_id": "canary"}
OF_TRAFFIC = (
    *(Sample, RequestName, Explanation, ConceptMatch, Flag, Incident, IncidentEvent, WebhookMessage),
)


def bombs(_: NDArray[np.float32]) -> str:
    return "talks of a bomb"


def add_canary(bench: Bench, positions: range = range(3), **changes: Any) -> None:
    for position in positions:
        bench.add(*make_record(position=position, **(CANARY | changes)))


def count(bench: Bench, table: type[Base]) -> int:
    with bench.sessions() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def coverage(bench: Bench, stratum: str) -> dict[str, int]:
    query = select(CoverageMinute.counter, func.sum(CoverageMinute.count))
    with bench.sessions() as session:
        rows = session.execute(
            query.where(CoverageMinute.stratum == stratum).group_by(CoverageMinute.counter)
        )
        return {counter: int(total) for counter, total in rows}


def found(bench: Bench, nonce: str = NONCE) -> canaries.Found:
    with bench.sessions() as session:
        return canaries.find(session, nonce)


def test_a_canary_is_read_and_judged_and_nobody_is_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench)

    bench.drain()

    assert found(bench) == canaries.Found(3, 3, frozenset({"bombs"}))
    assert {table.__name__: count(bench, table) for table in OF_TRAFFIC} == dict.fromkeys(
        (table.__name__ for table in OF_TRAFFIC), 0
    )
    assert coverage(bench, "canary") == {"rows_consumed": 3, "rows_decoded": 3}
    assert coverage(bench, "uniform") == {}
    shown = [
        sample
        for family in bench.parts.metrics.registry.collect()
        for sample in family.samples
        if sample.value
        and sample.name.startswith(
            (
                "subtext_explanation",
                "subtext_concept_flags",
                "subtext_incident",
                "subtext_anomaly",
                "subtext_pipeline",
            )
        )
        and not sample.name.endswith("_created")
    ]
    assert shown == []
    assert bench.metric("subtext_canary_readings_stored_total", model=MODEL) == 3


def test_a_canary_without_the_concept_is_not_flagged_with_it(bench: Bench) -> None:
    add_canary(bench)

    bench.drain()

    assert found(bench) == canaries.Found(3, 3, frozenset())


@pytest.mark.parametrize(
    ("judged", "order", "status"),
    [
        (None, [2, 0, 1], "lead"),
        (3, [2, 0, 1], "calibrated"),
        (2, [2, 0, 1], "lead"),  # position 2 says nothing, and only one of the others is judged
        (2, [1, 0, 2], "calibrated"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_once_a_rule_has_a_rate_a_canary_is_found_by_a_calibrated_flag_alone(
    make_bench: Callable[..., Bench],
    concepts_file: Path,
    tmp_path: Path,
    *,
    judged: int | None,
    order: list[int],
    status: str,
    size: int,
) -> None:
    decoder = FakeDecoder(text=lambda vector: "talks of a " + ("cake" if vector[1] == 3 else "bomb"))
    path = None
    if judged is not None:
        path = tmp_path / "calibration.json"
        made = calibration_of(load_concepts(concepts_file), decoder.identity, positions_judged=judged)
        calibration.save(made, path)
    bench = make_bench(decoder, concept_calibration_file=path)

    for start in range(0, 3, size):
        for position in order[start : start + size]:
            add_canary(bench, range(position, position + 1))
        bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(CanaryFlag)).one()
    assert (flag.concept, flag.status, flag.rule_is_calibrated) == ("bombs", status, judged is not None)
    is_found = judged is None or status == "calibrated"
    assert found(bench) == canaries.Found(3, 3, frozenset({"bombs"} if is_found else ()))


def test_one_position_alone_flags_no_canary_either(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench, range(1))
    bench.drain()
    assert found(bench).concepts == frozenset()

    add_canary(bench, range(1, 2))
    bench.drain()
    assert found(bench).concepts == {"bombs"}


def test_positions_of_two_captures_do_not_add_up(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench, range(1))
    add_canary(bench, range(1, 2), capture_id="beef" * 8)

    bench.drain()

    # Two positions of two captures that do not overlap may be of a prompt and its answer.
    assert found(bench) == canaries.Found(2, 2, frozenset(), is_complete=False)


def test_a_nonce_of_two_requests_is_replayed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench)
    add_canary(bench, capture_id="beef" * 8)

    bench.drain()

    assert found(bench) == canaries.Found(6, 6, frozenset({"bombs"}), is_replayed=True)


def test_a_prompt_and_its_answer_in_two_engines_are_one_request(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench)
    add_canary(bench, range(3, 6), capture_id="beef" * 8)

    bench.drain()

    assert found(bench) == canaries.Found(6, 6, frozenset({"bombs"}))


def test_a_canary_is_complete_once_the_positions_are_read_that_a_rule_looks_at(
    make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path
) -> None:
    decoder, path = FakeDecoder(text=bombs), tmp_path / "calibration.json"
    calibration.save(
        calibration_of(load_concepts(concepts_file), decoder.identity, positions_judged=4), path
    )
    bench = make_bench(decoder, concept_calibration_file=path)

    add_canary(bench, range(3))
    bench.drain()
    assert found(bench) == canaries.Found(3, 3, frozenset({"bombs"}), is_complete=False)

    add_canary(bench, range(3, 4))
    bench.drain()
    assert found(bench) == canaries.Found(4, 4, frozenset({"bombs"}))


def test_no_lead_is_found_while_a_calibration_is_rejected(
    make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path
) -> None:
    decoder, path = FakeDecoder(text=bombs), tmp_path / "calibration.json"
    made = calibration_of(load_concepts(concepts_file), decoder.identity, decoder_digest="another")
    calibration.save(made, path)
    bench = make_bench(decoder, concept_calibration_file=path)

    add_canary(bench)
    bench.drain()

    with bench.sessions() as session:
        assert session.scalars(select(CanaryFlag.status)).all() == ["lead"]
    assert found(bench) == canaries.Found(3, 3, frozenset())


def test_two_workers_at_once_flag_a_canary(make_bench: Callable[..., Bench]) -> None:
    benches = [make_bench(FakeDecoder(text=bombs)) for _ in range(2)]
    for number in range(8):
        add_canary(benches[0], range(2), canary=f"{number:032x}", capture_id=f"{number:032x}")

    drain_together(benches)

    for number in range(8):
        assert found(benches[0], f"{number:032x}").concepts == {"bombs"}


def test_a_canary_delivered_again_changes_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    for _ in range(2):
        add_canary(bench, captured_at=1.8e9)
        bench.drain()

    assert count(bench, CanaryReading) == 3
    assert count(bench, CanaryFlag) == 1
    assert coverage(bench, "canary") == {"rows_consumed": 3, "rows_decoded": 3, "rows_redelivered": 3}


def test_canaries_and_traffic_of_one_batch_part(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    for position in range(2):
        add_canary(bench, range(position, position + 1))
        bench.add(*make_record(position=position, request_id="traffic"))

    bench.drain()

    assert found(bench) == canaries.Found(2, 2, frozenset({"bombs"}))
    with bench.sessions() as session:
        assert session.scalars(select(Flag.request_id)).all() == ["traffic"]
        assert set(session.scalars(select(Sample.stratum))) == {"uniform"}
    assert coverage(bench, "uniform") == {"rows_consumed": 2, "rows_decoded": 2}


def test_canaries_that_all_read_alike_do_not_break_trust_in_the_decoder(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    for number in range(max(FEWEST, WINDOW)):
        add_canary(bench, range(1), canary=f"{number:032x}", capture_id=f"{number:032x}")
    bench.drain()

    add_canary(bench)
    bench.drain()

    assert found(bench).verified == 3


def test_a_canary_without_its_nonce_or_capture_is_set_aside(bench: Bench) -> None:
    add_canary(bench, range(1), canary=None)
    add_canary(bench, range(1, 2), capture_id=None)

    bench.drain()

    assert {letter[b"reason"] for letter in bench.dead_letters()} == {b"bad_field"}
    assert coverage(bench, "canary") == {"rows_consumed": 2, "dead_lettered_bad_field": 2}


def test_how_far_canaries_came_is_counted_by_hop(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    add_canary(bench, captured_at=1.8e9)
    bench.add(*make_record(position=7, captured_at=1.8e9))
    bench.drain()

    with bench.sessions() as session:
        model = bench.parts.settings.served_model or "fake-model"
        since = session.execute(select(func.min(CoverageMinute.minute))).scalar_one()
        counted = canaries.count_hops(session, model, since)

    assert counted == {("worker", "rows_consumed"): 3, ("worker", "rows_decoded"): 3}


def test_used_tokens_are_counted_whatever_stratum_they_were_drawn_in(bench: Bench) -> None:
    minute = dt.datetime(2027, 1, 15, 8, 0, tzinfo=dt.UTC)
    counts = [("uniform", "ignored_canary_replayed", 2), ("opt_in", "ignored_canary_replayed", 1)]
    counts += [("uniform", "requests_sampled", 9), ("canary", "requests_sampled", 4)]
    with bench.sessions.begin() as session:
        session.add_all(
            CoverageMinute(
                minute=minute,
                source="engine",
                hop="plugin",
                model=MODEL,
                stratum=stratum,
                counter=counter,
                count=count,
            )
            for stratum, counter, count in counts
        )

    with bench.sessions() as session:
        counted = canaries.count_hops(session, MODEL, minute)

    assert counted == {("plugin", "ignored_canary_replayed"): 3, ("plugin", "requests_sampled"): 4}
