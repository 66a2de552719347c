"""What is judged is stored once: one flag whoever counts, one p-value whoever measures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from service.store.tables import (
    ConceptMatch,
    ConceptVersion,
    Explanation,
    Flag,
    IncidentEvent,
    Model,
    ModelConcept,
    Sample,
)
from service.store.write.concepts import ChangedConceptError
from subtext_sidecar.anomaly import fit
from subtext_sidecar.anomaly.score import Detector, Places, Reference
from subtext_sidecar.contract import record
from tests.support.calibrations import MEASURED, calibrated, calibration_of
from tests.support.probes import write_probe
from tests.support.worker import D_MODEL, MODEL, Bench, drain_together, make_record
from workers.judge import calibration
from workers.judge.concepts import load_concepts
from workers.judge.probes import ProbeError
from workers.nla.fake import FakeDecoder

REQUESTS = 24


def bombs_in_plural(_: NDArray[np.float32]) -> str:
    return "talks of bombs"


def bombs(_: NDArray[np.float32]) -> str:
    return "talks of a bomb"


def usual_traffic(model: str = MODEL) -> Reference:
    rows = 0.01 * np.random.default_rng(0).standard_normal((4000, D_MODEL)) + np.eye(D_MODEL)[0]
    return fit.fit(rows, np.arange(len(rows)), model=model, layer=1).reference


def test_two_workers_that_read_one_request_at_once_raise_its_flag_once(
    make_bench: Callable[..., Bench],
) -> None:
    benches = [make_bench(FakeDecoder(text=bombs)) for _ in range(2)]
    for position in range(3):
        for number in range(REQUESTS):
            benches[0].add(*make_record(position=position, request_id=f"r{number}"))

    drain_together(benches)

    with benches[0].sessions() as session:
        flags = session.scalars(select(Flag)).all()
    assert sorted(flag.request_id for flag in flags) == sorted(f"r{number}" for number in range(REQUESTS))
    assert {(flag.positions_matched, flag.positions_verified) for flag in flags} == {(3, 3)}
    raised = [
        bench.metric(
            "subtext_concept_flags_total", model=MODEL, concept="bombs", severity="critical", status="lead"
        )
        for bench in benches
    ]
    assert sum(raised) == REQUESTS


VERSIONED = """
version: 2
concepts:
  - {name: bombs, version: 4, description: bombs, severity: critical, matchers: [{regex: bomb}]}
"""


PROBED = """
version: 2
concepts:
  - name: bombs
    version: 1
    description: bombs
    severity: critical
    matchers: [{probe: {file: bombs.safetensors, threshold: 0.5}}, {regex: bomb}]
"""


def test_a_probe_raises_a_flag_of_what_no_reading_says_and_the_evidence_names_it(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    digest = write_probe(concepts_file.parent)
    concepts_file.write_text(PROBED)
    bench = make_bench(FakeDecoder(text=lambda _: "talks of a cake"))
    bench.add_samples(3)

    bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
        matches = session.scalars(select(ConceptMatch)).all()
        version = session.scalars(select(ConceptVersion)).one()
    assert (flag.concept, flag.status, flag.positions_matched) == ("bombs", "lead", 3)
    assert {match.matcher for match in matches} == {"probe"}
    assert all(0.5 < match.score < 1.0 for match in matches)
    assert version.definition["matchers"][0] == {"probe": {"threshold": 0.5, "digest": digest}}


def test_a_probe_that_was_fitted_anew_needs_a_new_version(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    write_probe(concepts_file.parent)
    concepts_file.write_text(PROBED)
    make_bench()
    write_probe(concepts_file.parent, threshold=0.7)

    with pytest.raises(ChangedConceptError, match="matchers: version 1 was used with another"):
        make_bench()


def test_a_probe_of_another_layer_is_refused_before_anything_is_registered(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    write_probe(concepts_file.parent, layer=2)
    concepts_file.write_text(PROBED)

    with pytest.raises(
        ProbeError, match="'bombs': layer: it is of 2, the decoder reads 1; fit one of that"
    ):
        make_bench()


def test_a_flag_names_its_concepts_version_and_is_a_lead_until_its_rate_is_known(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(3)

    bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
        version = session.scalars(select(ConceptVersion)).one()
    assert (flag.status, flag.false_positive_rate, flag.calibration_digest) == ("lead", None, None)
    assert (flag.concept_version, flag.concept_digest) == (4, version.digest)
    assert version.definition["matchers"] == [{"regex": "bomb"}]
    labels = {"model": MODEL, "concept": "bombs", "severity": "critical"}
    assert bench.metric("subtext_concept_flags_total", **labels, status="lead") == 1


def test_a_calibrated_flag_carries_its_rate_and_its_calibration(
    make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    decoder, path = FakeDecoder(text=bombs), tmp_path / "calibration.json"
    calibration.save(calibration_of(load_concepts(concepts_file), decoder.identity), path)
    bench = make_bench(decoder, concept_calibration_file=path)
    bench.add_samples(3)

    bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
    assert (flag.status, flag.calibration_digest) == ("calibrated", calibration.load(path).digest)
    assert flag.false_positive_rate == MEASURED.rate
    assert flag.false_positive_rate_upper == MEASURED.upper_limit
    assert flag.calibration_requests == MEASURED.requests
    labels = {"model": MODEL, "layer": "1"}
    assert bench.metric("subtext_concept_calibrated", concept="bombs", **labels) == 1
    assert bench.metric("subtext_concept_calibration_rejected", reason="absent", **labels) == 0
    assert bench.metric("subtext_concept_calibration_made_timestamp_seconds", **labels) > 0


@pytest.mark.parametrize("first", ["bomb", "cake"])
@pytest.mark.parametrize("size", [1, 16])
def test_a_flag_is_calibrated_by_the_positions_that_were_read_first_however_they_are_batched(
    make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path, size: int, first: str
) -> None:
    """Of sixteen positions three are judged; the others can only raise a lead."""
    concepts_file.write_text(VERSIONED)
    others = {"bomb": "cake", "cake": "bomb"}[first]
    order = [11, 2, 15, *(place for place in range(16) if place not in {11, 2, 15})]
    words = {place + 1: f"talks of a {first if place in order[:3] else others}" for place in order}
    decoder = FakeDecoder(text=lambda vector: words.get(int(vector[1]), ""))
    path = tmp_path / "calibration.json"
    made = calibration_of(load_concepts(concepts_file), decoder.identity, positions_judged=3)
    calibration.save(made, path)
    bench = make_bench(decoder, concept_calibration_file=path)

    for start in range(0, 16, size):
        batch = [make_record(position=place) for place in order[start : start + size]]
        for header, vector in [*batch, *batch]:  # redelivered at once
            bench.add(header, vector)
        bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
        read = (
            select(Sample.position)
            .join(Explanation, Explanation.sample_id == Sample.id)
            .order_by(Explanation.created_at)
        )
        assert session.scalars(read).all() == order
    assert flag.status == ("calibrated" if first == "bomb" else "lead")
    assert (flag.positions_matched, flag.positions_verified) == (3 if first == "bomb" else 13, 16)
    labels = {"model": MODEL, "concept": "bombs", "severity": "critical"}
    assert bench.metric("subtext_concept_flags_total", **labels, status=flag.status) == 1


@pytest.mark.parametrize(
    ("chosen", "status"),
    [
        ("sss", "lead"),
        ("ssb", "lead"),
        ("sbb", "lead"),  # as a lead was raised before what could calibrate it, it stays one
        ("bss", "lead"),
        ("bbs", "calibrated"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_flag_is_not_calibrated_by_what_only_the_screen_chose(
    make_bench: Callable[..., Bench],
    concepts_file: Path,
    tmp_path: Path,
    *,
    chosen: str,
    status: str,
    size: int,
) -> None:
    """The rule requires two positions; chance chose those of ``b``, the screen those of ``s``."""
    concepts_file.write_text(VERSIONED)
    decoder, path = FakeDecoder(text=bombs), tmp_path / "calibration.json"
    made = calibration_of(load_concepts(concepts_file), decoder.identity, positions_judged=3)
    calibration.save(made, path)
    bench = make_bench(decoder, concept_calibration_file=path)

    for start in range(0, 3, size):
        for position in range(start, start + size):
            screened = {"baseline_probability": 0.0, "reason": "screen_probe"}
            bench.add(*make_record(position=position, **(screened if chosen[position] == "s" else {})))
        bench.drain()

    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
        events = session.scalars(select(IncidentEvent).order_by(IncidentEvent.version)).all()
    assert (flag.status, flag.positions_matched, flag.positions_verified) == (status, 3, 3)
    assert (flag.false_positive_rate is None) == (status == "lead")
    assert {finding["status"] for event in events for finding in event.findings} == {status}
    labels = {"model": MODEL, "concept": "bombs", "severity": "critical"}
    assert bench.metric("subtext_concept_flags_total", **labels, status=status) == 1


def test_a_match_below_the_calibrated_threshold_counts_toward_no_flag(
    make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path
) -> None:
    """The probe scores position 0 with 0.804, 1 with 0.815 and 2 with 0.818."""
    write_probe(concepts_file.parent, threshold=0.5)
    concepts_file.write_text(PROBED)
    decoder, path = FakeDecoder(text=lambda _: "talks of a cake"), tmp_path / "calibration.json"
    before = make_bench(decoder)
    before.add_samples(1)
    before.drain()
    concepts = load_concepts(concepts_file)
    rules = {concept.name: calibrated(concept, threshold=0.81) for concept in concepts.concepts}
    made = calibration_of(concepts, decoder.identity).model_copy(update={"concepts": rules})
    calibration.save(made, path)
    bench = make_bench(decoder, concept_calibration_file=path)

    bench.add(*make_record(position=1))
    bench.drain()

    with bench.sessions() as session:
        scores = session.scalars(select(ConceptMatch.score).order_by(ConceptMatch.score)).all()
        assert scores == pytest.approx([0.804, 0.815], abs=1e-3)
        assert session.scalars(select(Flag)).all() == []
    bench.add(*make_record(position=2))
    bench.drain()
    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
    assert (flag.status, flag.positions_matched, flag.positions_verified) == ("calibrated", 2, 3)


def test_a_match_of_a_former_definition_counts_toward_no_flag(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    before = make_bench(FakeDecoder(text=bombs))
    before.add_samples(1)
    before.drain()
    changed = VERSIONED.replace("version: 4", "version: 5").replace("regex: bomb", "regex: bo")
    concepts_file.write_text(changed)
    bench = make_bench(FakeDecoder(text=bombs))

    bench.add(*make_record(position=1))
    bench.drain()

    with bench.sessions() as session:
        digests = session.scalars(select(ConceptMatch.concept_digest)).all()
        assert len(set(digests)) == len(digests) == 2
        assert None not in digests
        assert session.scalars(select(Flag)).all() == []
    bench.add(*make_record(position=2))
    bench.drain()
    with bench.sessions() as session:
        flag = session.scalars(select(Flag)).one()
    assert (flag.positions_matched, flag.concept_version) == (2, 5)


def test_a_version_that_was_used_with_another_definition_is_refused(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    make_bench()
    make_bench()  # the same again is no change
    concepts_file.write_text(VERSIONED.replace("regex: bomb", "regex: bombs"))

    with pytest.raises(ChangedConceptError, match=r"'bombs': matchers: version 4 .* set version: 5"):
        make_bench()

    concepts_file.write_text(
        VERSIONED.replace("version: 4", "version: 5").replace("regex: bomb", "regex: b")
    )
    make_bench()


def test_two_models_call_different_definitions_by_one_version(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    make_bench()
    concepts_file.write_text(VERSIONED.replace("regex: bomb", "regex: bombs"))
    other = make_bench(FakeDecoder(text=bombs_in_plural), served_model="other")
    other.add_samples(3, model="other")
    other.drain()

    with other.sessions() as session:
        flag = session.scalars(select(Flag)).one()
        query = (
            select(Model.name, ConceptVersion.version, ConceptVersion.definition)
            .join(ModelConcept, ModelConcept.digest == ConceptVersion.digest)
            .join(Model, Model.id == ModelConcept.model_id)
            .order_by(Model.name)
        )
        used = [(name, version, what["matchers"]) for name, version, what in session.execute(query)]
        of_flag = session.get_one(ConceptVersion, flag.concept_digest)
    assert used == [(MODEL, 4, [{"regex": "bomb"}]), ("other", 4, [{"regex": "bombs"}])]
    assert (flag.concept_version, of_flag.definition["matchers"]) == (4, [{"regex": "bombs"}])
    concepts_file.write_text(VERSIONED.replace("regex: bomb", "regex: shells"))
    with pytest.raises(ChangedConceptError, match=r"'bombs': matchers: version 4 .* set version: 5"):
        make_bench(served_model="other")


def test_two_models_share_one_definition_and_keep_their_own_versions(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    concepts_file.write_text(VERSIONED)
    make_bench()
    bench = make_bench(served_model="other")

    with bench.sessions() as session:
        assert len(session.scalars(select(ConceptVersion)).all()) == 1
        assert len(session.scalars(select(ModelConcept)).all()) == 2


def test_concepts_without_a_version_may_change(
    make_bench: Callable[..., Bench], concepts_file: Path
) -> None:
    make_bench()
    concepts_file.write_text(concepts_file.read_text().replace("regex: bomb", "regex: boom"))

    bench = make_bench()

    with bench.sessions() as session:
        versions = session.scalars(select(ConceptVersion.version)).all()
    assert versions == [None, None]


def test_a_row_has_the_p_value_that_the_screen_gave_it(make_bench: Callable[..., Bench]) -> None:
    reference = usual_traffic()
    content = record.decode(*make_record())
    measured = Detector(reference).score(content.values()[None], Places.of([content.header]))
    # What the sidecar says of it, but for rounding.
    score, p_value = float(measured.anomaly[0]) * (1 + 1e-5), float(measured.p_values[0])
    bench = make_bench(FakeDecoder(), reference)
    for request_id, scores in (
        ("1 screened", {"anomaly": score, "anomaly_p_value": p_value}),
        ("2 alone", {}),
        ("3 disputed", {"anomaly": -0.5, "anomaly_p_value": 0.75}),
    ):
        bench.add(*make_record(request_id=request_id, scores=scores))

    bench.drain()

    with bench.sessions() as session:
        query = select(Explanation).join(Sample, Sample.id == Explanation.sample_id)
        screened, alone, disputed = session.scalars(query.order_by(Sample.request_id)).all()
    assert (screened.anomaly_score, screened.anomaly_p_value) == (score, p_value)
    assert alone.anomaly_score == disputed.anomaly_score == pytest.approx(score, rel=1e-4)
    assert {row.anomaly_p_value for row in (screened, alone, disputed)} == {p_value}
    assert bench.metric("subtext_anomaly_disputes_total", model=MODEL) == 1


def test_a_reference_of_another_model_is_refused(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(ValueError, match=f"anomaly reference: model: it is of 'other', .* '{MODEL}'"):
        make_bench(FakeDecoder(), usual_traffic("other"))
