"""Files of version 2: a version for each concept, claims as matchers, and a digest of what was written."""

from pathlib import Path

import pytest

from workers.judge.concepts import ConceptsError, load_concepts
from workers.judge.embedder import WordEmbedder
from workers.judge.matching import CERTAIN, ConceptMatcher, Match
from workers.nla.decoder import Claims

FILE = """
version: 2
concepts:
  - name: fraud
    version: 3
    description: deceit
    severity: warning
    target_false_positive_rate: 0.02
    matchers:
      - claim: {kind: fraud}
      - claim: {area: law and crime, threshold: 0.6}
  - name: cooking
    version: 1
    description: food
    severity: info
    matchers:
      - claim: {topic: baking}
      - regex: oven
      - semantic: {examples: ["a cake"], threshold: 0.7}
"""


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(content)
    return path


def claims(**changes: object) -> Claims:
    nothing = Claims(
        register="an answer",
        area=None,
        topic=None,
        kinds=(),
        expects=None,
        expects_agreement=None,
        areas={},
        kind_scores={},
    )
    return nothing._replace(**changes)  # type: ignore[arg-type]  # fields by name


def test_a_concept_has_its_version_its_target_and_a_digest_of_its_content(tmp_path: Path) -> None:
    fraud, cooking = load_concepts(write(tmp_path, FILE)).concepts

    assert (fraud.version, fraud.target, cooking.target) == (3, 0.02, 0.01)
    relaid = load_concepts(write(tmp_path, FILE.replace("deceit", "'deceit'  # in one word"))).concepts[0]
    changed = load_concepts(write(tmp_path, FILE.replace("deceit", "lies"))).concepts[0]
    assert relaid.digest == fraud.digest != changed.digest


def test_a_second_review_is_part_of_the_definition_and_changes_no_other_one(tmp_path: Path) -> None:
    asking = FILE.replace("    description: deceit\n", "    description: deceit\n    second_review: true\n")
    fraud, cooking = load_concepts(write(tmp_path, FILE)).concepts

    fraud_of_two, cooking_of_two = load_concepts(write(tmp_path, asking)).concepts

    assert fraud_of_two.content == {**fraud.content, "second_review": True}
    assert (fraud_of_two.digest != fraud.digest, cooking_of_two.digest) == (True, cooking.digest)


def test_named_claims_match_for_certain_and_probabilities_above_their_threshold(tmp_path: Path) -> None:
    matcher = ConceptMatcher(load_concepts(write(tmp_path, FILE)), WordEmbedder(), {})
    made = [
        claims(kinds=("fraud",)),
        claims(areas={"law and crime": 0.7}),
        claims(areas={"law and crime": 0.5}, area="law and crime"),
        claims(topic="baking"),
        None,
    ]

    assert matcher.match(["nothing"] * 5, made) == [
        [Match("fraud", "claim", CERTAIN)],
        [Match("fraud", "claim", 0.7)],
        [],
        [Match("cooking", "claim", CERTAIN)],
        [],
    ]
    assert matcher.match(["nothing", "the oven"]) == [[], [Match("cooking", "regex", CERTAIN)]]


def test_scores_are_measured_whatever_the_thresholds(tmp_path: Path) -> None:
    matcher = ConceptMatcher(load_concepts(write(tmp_path, FILE)), WordEmbedder(), {"fraud": 0.99})
    made = [claims(kinds=("fraud",)), claims(areas={"law and crime": 0.5}), claims()]

    scores = matcher.measure(["a cake", "the oven", "elsewhere"], made)

    assert scores[:, 0].tolist() == [CERTAIN, 0.5, 0.0]
    assert 0.99 < scores[0, 1] < CERTAIN  # alike, and still no certain match
    assert scores[1, 1] == CERTAIN
    assert matcher.measure([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("{kind: fraud}", "{kind: fraud, area: law}"), "'fraud': matchers.0.claim: needs exactly one"),
        (("{topic: baking}", "{topic: baking, threshold: 0.5}"), "topics have no probability"),
        (("{topic: baking}", "{area: food, threshold: 0.5}"), "no common threshold to calibrate"),
        (("    version: 3\n", ""), "concept 'fraud': version: missing"),
        (("rate: 0.02", "rate: 1"), "'fraud': target_false_positive_rate"),
        (("target_false_positive_rate: 0.02", "second_review: false"), "'fraud': second_review"),
        (
            ("version: 2\n", "version: 1\n"),
            "concept 'fraud': version: is of files of version 2; set version: 2",
        ),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(ConceptsError) as refusal:
        load_concepts(write(tmp_path, FILE.replace(*change, 1)))

    assert complaint in str(refusal.value)


def test_claims_are_refused_in_files_of_version_1(tmp_path: Path) -> None:
    unversioned = (
        "version: 1\nconcepts:\n"
        "  - {name: a, description: b, severity: info, matchers: [{claim: {kind: fraud}}]}\n"
    )

    with pytest.raises(ConceptsError, match="concept 'a': matchers: claim is of files of version 2"):
        load_concepts(write(tmp_path, unversioned))
