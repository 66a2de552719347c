"""From readings of benign requests to rules, rates and a refusal that says how many are needed."""

import base64
import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest

from service.store.write.evidence import Evidence, Sighting
from tests.support.probes import write_probe
from tests.support.worker import D_MODEL
from workers.calibrate import concepts as command
from workers.judge import calibration
from workers.judge.calibration import put_in_force
from workers.judge.concepts import ConceptSet, load_concepts
from workers.judge.embedder import WordEmbedder
from workers.judge.flags import decide
from workers.judge.matching import ConceptMatcher
from workers.nla.errors import CalibrationError
from workers.nla.fake import FakeDecoder

FILE = """
version: 2
concepts:
  - name: bombs
    version: 1
    description: bombs
    severity: critical
    matchers:
      - semantic: {examples: [a bomb explodes loudly], threshold: 0.5}
  - {name: chatter, version: 1, description: words, severity: info, matchers: [{regex: the}]}
  - {name: guns, version: 1, description: guns, severity: critical, matchers: [{regex: guns}]}
"""
POSITIONS = 5
START = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
DECODED = command.Decoded("d" * 64, "m", 1)
WORDS = [
    "a",
    "bomb",
    "explodes",
    "loudly",
    "in",
    "my",
    "quiet",
    "old",
    "garden",
    "while",
    "they",
    "sleep",
    "and",
    "dream",
    "on",
]


@pytest.fixture
def concepts(tmp_path: Path) -> ConceptSet:
    path = tmp_path / "concepts.yaml"
    path.write_text(FILE)
    return load_concepts(path)


def requests(count: int, seed: int, *, positions: int = 5) -> list[command.JudgedReading]:
    rng = np.random.default_rng(seed)
    return [
        command.JudgedReading(
            request=f"r{number}",
            position=position,
            text=" ".join(["the", *rng.choice(WORDS, 4)]),
            verified=bool(rng.uniform() < 0.9),
        )
        for number in range(count)
        for position in range(positions)
    ]


def measured(concepts: ConceptSet, readings: list[command.JudgedReading]) -> command.Requests:
    matcher = ConceptMatcher(concepts, WordEmbedder(), {})
    return command.measure(readings, matcher, positions=POSITIONS, source="test")


def summarized(
    concepts: ConceptSet, benign: command.Requests, held_out: command.Requests | None = None
) -> calibration.ConceptCalibration:
    return command.summarize(concepts, DECODED, benign, held_out, positions_judged=POSITIONS)


def test_rules_meet_their_target_and_other_requests_confirm_it(concepts: ConceptSet) -> None:
    made = summarized(concepts, measured(concepts, requests(500, 1)), measured(concepts, requests(500, 2)))

    bombs, chatter, guns = made.concepts.values()
    assert (bombs.reason, bombs.positions_required) == (None, 2)
    assert bombs.measured.incidents <= 1  # of 500: the limit for two is 1.3%
    assert 1 / 500 < bombs.measured.upper_limit <= 0.01
    assert bombs.threshold is not None
    assert bombs.threshold >= 0.5
    assert chatter.reason is not None
    assert "6 positions would have to match" in chatter.reason
    assert (guns.reason, guns.threshold, guns.measured.incidents) == (None, None, 0)
    assert made.held_out is not None
    assert made.held_out.concepts.keys() == {"bombs", "guns"}
    assert made.held_out.concepts["bombs"].rate <= 0.03
    assert made.any_concept.incidents == bombs.measured.incidents
    assert (made.traffic.requests, made.traffic.readings, made.positions_judged) == (500, 2500, 5)


def test_too_few_requests_are_refused_with_what_is_needed(concepts: ConceptSet) -> None:
    with pytest.raises(
        CalibrationError, match=r"'bombs': target_false_positive_rate 0\.01 needs 299 .* there are 298"
    ):
        summarized(concepts, measured(concepts, requests(298, 1)))


def test_a_position_that_was_read_twice_counts_once(concepts: ConceptSet) -> None:
    once = requests(2, 1)

    found = measured(concepts, once + once)

    assert (found.traffic.readings, found.traffic.requests) == (10, 2)


def test_the_positions_that_were_read_first_are_judged_and_shorter_requests_left_out(
    concepts: ConceptSet,
) -> None:
    long = requests(3, 1, positions=9)
    early = [reading for reading in long if reading.position < POSITIONS]
    short = [reading.model_copy(update={"request": "short"}) for reading in requests(1, 2, positions=4)]

    found, expected = measured(concepts, short + long), measured(concepts, early)

    assert [scores.tolist() for scores in found.positions] == [
        scores.tolist() for scores in expected.positions
    ]
    assert (found.traffic.requests, found.traffic.requests_left_out) == (3, 1)
    assert found.traffic.last_position == expected.traffic.last_position
    # Read first, whatever their place in the request is.
    late = measured(concepts, long[::-1])
    assert late.traffic.last_position["least"] == 8
    with pytest.raises(CalibrationError, match="positions 5: none of the 1 requests has as many"):
        measured(concepts, short)


def test_a_worker_judges_longer_requests_as_the_calibration_judged_held_out_ones(
    concepts: ConceptSet,
) -> None:
    identity = FakeDecoder().identity
    decoded = command.Decoded(identity.digest, identity.model, identity.layer)
    later = requests(500, 2, positions=9)
    made = command.summarize(
        concepts,
        decoded,
        measured(concepts, requests(500, 1)),
        measured(concepts, later),
        positions_judged=POSITIONS,
    )
    in_force = put_in_force(concepts, calibration.Loaded(made, "f" * 64), identity)
    matcher = ConceptMatcher(concepts, WordEmbedder(), in_force.thresholds)
    matches = matcher.match([reading.text for reading in later])

    calibrated = leads = 0
    for start in range(0, len(later), 9):
        read = later[start : start + 9]
        sightings = [
            Sighting(match.concept, reading.position, START)
            for reading, found in zip(read, matches[start : start + 9], strict=True)
            if reading.verified
            for match in found
        ]
        places = [reading.position for reading in read]
        for flag in decide(in_force.rules, Evidence(sightings, places, len(places))):
            calibrated += flag.concept == "bombs" and flag.calibrated is not None
            leads += flag.concept == "bombs" and flag.calibrated is None

    assert made.held_out is not None
    assert calibrated == made.held_out.concepts["bombs"].incidents
    assert calibrated / 500 <= 0.01
    assert leads > calibrated


def test_a_concept_that_needs_more_positions_than_are_judged_stays_a_lead(tmp_path: Path) -> None:
    path = tmp_path / "concepts.yaml"
    path.write_text(
        FILE.replace("severity: critical, matchers", "severity: critical, positions_required: 6, matchers")
    )
    many = load_concepts(path)

    made = summarized(many, measured(many, requests(300, 1)))

    assert made.concepts["guns"].reason == (
        "6 positions would have to match, and a calibrated flag looks at 5"
    )


def test_lines_are_read_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    lines = [reading.model_dump_json() for reading in requests(1, 1)]
    path.write_text("\n".join(lines) + "\n\n")

    assert command.load_readings(path) == requests(1, 1)
    path.write_text(lines[0] + "\n" + json.dumps({"request": "r"}) + "\n")
    with pytest.raises(CalibrationError, match="line 2: position: Field required; correct it"):
        command.load_readings(path)
    path.write_text("")
    with pytest.raises(CalibrationError, match="holds no readings"):
        command.load_readings(path)


def test_what_is_made_loads_and_is_told_by_concept(concepts: ConceptSet, tmp_path: Path) -> None:
    made = summarized(concepts, measured(concepts, requests(300, 1)))
    calibration.save(made, tmp_path / "calibration.json")

    assert calibration.load(tmp_path / "calibration.json").calibration == made
    told = list(command.describe(made))
    assert any(line.startswith("guns: 2 positions: 0 of 300 benign requests flagged") for line in told)
    assert any(line.startswith("chatter: stays a lead") for line in told)


WITH_PROBE = """
version: 2
concepts:
  - name: bombs
    version: 1
    description: bombs
    severity: critical
    matchers: [{probe: {file: bombs.safetensors, threshold: 0.5}}, {regex: detonator}]
"""


def with_vectors(readings: list[command.JudgedReading]) -> list[command.JudgedReading]:
    rows = np.random.default_rng(0).standard_normal((len(readings), D_MODEL)).astype("<f4")
    return [
        one.model_copy(update={"vector": base64.b64encode(row.tobytes()).decode()})
        for one, row in zip(readings, rows, strict=True)
    ]


def test_a_probe_gets_its_threshold_from_the_vectors_of_benign_requests(tmp_path: Path) -> None:
    write_probe(tmp_path)
    path = tmp_path / "concepts.yaml"
    path.write_text(WITH_PROBE)
    concepts = load_concepts(path)
    benign = measured(concepts, with_vectors(requests(300, 1)))

    made = command.summarize(concepts, DECODED, benign, positions_judged=POSITIONS)

    bombs = made.concepts["bombs"]
    assert (bombs.reason, bombs.digest) == (None, concepts.concepts[0].digest)
    assert bombs.threshold is not None
    assert 0.5 < bombs.threshold < 1.0
    assert bombs.measured.upper_limit <= 0.01  # of none among 300


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        (None, "is missing, and a concept has a probe"),
        ("?", "is not float32 in base64"),
        ("AAAA", "is not float32 in base64"),
        (base64.b64encode(bytes(4 * D_MODEL)).decode(), "must be finite, not zero"),
        (base64.b64encode(np.full(D_MODEL, np.nan, "<f4").tobytes()).decode(), "must be finite"),
        (base64.b64encode(np.ones(3, "<f4").tobytes()).decode(), "and as wide as the others"),
    ],
)
def test_a_reading_without_a_usable_vector_is_named(
    tmp_path: Path, vector: str | None, complaint: str
) -> None:
    write_probe(tmp_path)
    path = tmp_path / "concepts.yaml"
    path.write_text(WITH_PROBE)
    readings = with_vectors(requests(1, 1))
    readings[2] = readings[2].model_copy(update={"vector": vector})

    with pytest.raises(CalibrationError) as refusal:
        measured(load_concepts(path), readings)

    assert "request 'r0', position 2: vector: " in str(refusal.value)
    assert complaint in str(refusal.value)
