"""From readings of benign requests to rules, rates and a refusal that says how many are needed."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.probes import write_probe
from tests.support.worker import D_MODEL
from workers.calibrate import concepts as command
from workers.judge import calibration
from workers.judge.concepts import ConceptSet, load_concepts
from workers.judge.embedder import WordEmbedder
from workers.judge.matching import ConceptMatcher
from workers.nla.errors import CalibrationError

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
    return command.measure(readings, ConceptMatcher(concepts, WordEmbedder(), {}), source="test")


def test_rules_meet_their_target_and_other_requests_confirm_it(concepts: ConceptSet) -> None:
    made = command.summarize(
        concepts, DECODED, measured(concepts, requests(300, 1)), measured(concepts, requests(300, 2))
    )

    bombs, chatter, guns = made.concepts.values()
    assert (bombs.reason, bombs.positions_required) == (None, 2)
    assert bombs.measured.incidents <= 2  # floor(0.01 * 301) - 1
    assert bombs.measured.upper_limit > 2 / 300
    assert chatter.reason is not None
    assert "6 positions would have to match" in chatter.reason
    assert (guns.reason, guns.threshold, guns.measured.incidents) == (None, None, 0)
    assert made.held_out is not None
    assert made.held_out.concepts.keys() == {"bombs", "guns"}
    assert made.held_out.concepts["bombs"].rate <= 0.03
    assert made.any_concept.incidents == bombs.measured.incidents
    assert (made.traffic.requests, made.traffic.readings, made.most_positions) == (300, 1500, 5)


def test_too_few_requests_are_refused_with_what_is_needed(concepts: ConceptSet) -> None:
    with pytest.raises(
        CalibrationError, match=r"'bombs': .* 1 / rate - 1 = 99 .*, and 299 .* there are 98"
    ):
        command.summarize(concepts, DECODED, measured(concepts, requests(98, 1)))


def test_a_position_that_was_read_twice_counts_once(concepts: ConceptSet) -> None:
    once = requests(2, 1)

    found = measured(concepts, once + once)

    assert (found.traffic.readings, found.traffic.requests) == (10, 2)


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
    made = command.summarize(concepts, DECODED, measured(concepts, requests(120, 1)))
    calibration.save(made, tmp_path / "calibration.json")

    assert calibration.load(tmp_path / "calibration.json").calibration == made
    told = list(command.describe(made))
    assert any(line.startswith("guns: 2 positions: 0 of 120 benign requests flagged") for line in told)
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

    made = command.summarize(concepts, DECODED, measured(concepts, with_vectors(requests(300, 1))))

    bombs = made.concepts["bombs"]
    assert (bombs.reason, bombs.digest) == (None, concepts.concepts[0].digest)
    assert bombs.threshold is not None
    assert 0.5 < bombs.threshold < 1.0
    assert bombs.measured.incidents == 2  # floor(0.01 * 301) - 1


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
