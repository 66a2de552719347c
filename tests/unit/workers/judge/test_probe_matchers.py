"""A concept's probe matches vectors, beside what is read of them; its file is part of the definition."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.probes import write_probe
from tests.support.worker import D_MODEL
from workers.judge.concepts import ConceptsError, load_concepts
from workers.judge.embedder import WordEmbedder
from workers.judge.matching import CERTAIN, ConceptMatcher

FILE = """
version: 2
concepts:
  - name: bombs
    version: 1
    description: bombs
    severity: critical
    matchers:
      - probe: {file: bombs.safetensors, threshold: 0.9}
      - regex: explosive
"""
ROWS = np.array([[0, 1, *[0] * (D_MODEL - 2)], [1, 0, *[0] * (D_MODEL - 2)]], np.float32)


def write(tmp_path: Path, content: str = FILE) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(content)
    return path


def test_a_position_matches_by_its_probe_or_by_its_reading_and_says_by_which(tmp_path: Path) -> None:
    write_probe(tmp_path)
    matcher = ConceptMatcher(load_concepts(write(tmp_path)), WordEmbedder(), {})

    by_probe, by_reading = matcher.match(["a cake", "an explosive"], None, ROWS)

    assert [(match.concept, match.matcher) for match in by_probe] == [("bombs", "probe")]
    assert by_probe[0].score == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert [(match.matcher, match.score) for match in by_reading] == [("regex", CERTAIN)]
    assert matcher.match(["a cake", "a cake"], None, ROWS)[1] == []
    assert matcher.needs_vectors


def test_a_calibrated_threshold_holds_for_the_probe_and_scores_are_measured(tmp_path: Path) -> None:
    write_probe(tmp_path)
    strict = ConceptMatcher(load_concepts(write(tmp_path)), WordEmbedder(), {"bombs": 0.99})

    assert strict.match(["a cake", "a cake"], None, ROWS) == [[], []]
    scores = strict.measure(["a cake", "an explosive"], None, ROWS)
    assert scores[:, 0] == pytest.approx([1 / (1 + np.exp(-4.0)), CERTAIN])
    assert scores[0, 0] < CERTAIN


def test_vectors_are_needed_where_there_is_a_probe(tmp_path: Path) -> None:
    write_probe(tmp_path)
    matcher = ConceptMatcher(load_concepts(write(tmp_path)), WordEmbedder(), {})

    with pytest.raises(ValueError, match="vectors: missing, and a concept has a probe"):
        matcher.match(["a cake"])
    assert matcher.match([]) == []


def test_the_file_is_part_of_the_definition_and_its_place_is_not(tmp_path: Path) -> None:
    digest = write_probe(tmp_path)
    first = load_concepts(write(tmp_path))

    assert first.concepts[0].content["matchers"][0] == {"probe": {"threshold": 0.9, "digest": digest}}
    assert first.probes.keys() == {digest}
    write_probe(tmp_path, "elsewhere.safetensors")
    moved = load_concepts(write(tmp_path, FILE.replace("bombs.safetensors", "elsewhere.safetensors")))
    assert moved.concepts[0].digest == first.concepts[0].digest
    write_probe(tmp_path, threshold=0.5)
    refitted = load_concepts(write(tmp_path))
    assert refitted.concepts[0].digest != first.concepts[0].digest
    assert refitted.digest != first.digest


def test_a_written_digest_must_be_the_files(tmp_path: Path) -> None:
    digest = write_probe(tmp_path)
    pinned = FILE.replace("threshold: 0.9", f"threshold: 0.9, digest: {digest}")
    assert load_concepts(write(tmp_path, pinned)).probes.keys() == {digest}

    other = write_probe(tmp_path, threshold=0.5)

    with pytest.raises(ConceptsError) as refusal:
        load_concepts(write(tmp_path, pinned))
    assert f"concept 'bombs': matchers.0.probe.digest: bombs.safetensors has {other}" in str(refusal.value)
    assert "raise the concept's version" in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("bombs.safetensors", "nowhere"), "concept 'bombs': matchers.0.probe.file: "),
        ((", threshold: 0.9", ""), "concept 'bombs': matchers.0.probe.threshold: "),
        (("threshold: 0.9", "threshold: 1.0"), "concept 'bombs': matchers.0.probe.threshold: "),
        (("- regex: explosive", "- claim: {kind: x, threshold: 0.5}"), "claim and probe have no common"),
        (
            ("- regex: explosive", "- semantic: {examples: [x], threshold: 0.5}"),
            "probe and semantic have no",
        ),
        (("version: 2\n", "version: 1\n"), "version: is of files of version 2"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    write_probe(tmp_path)

    with pytest.raises(ConceptsError) as refusal:
        load_concepts(write(tmp_path, FILE.replace(*change, 1)))

    assert complaint in str(refusal.value)


def test_probes_are_refused_in_files_of_version_1(tmp_path: Path) -> None:
    write_probe(tmp_path)
    old = FILE.replace("version: 2\n", "version: 1\n").replace("    version: 1\n", "")

    with pytest.raises(ConceptsError, match="matchers: probe is of files of version 2"):
        load_concepts(write(tmp_path, old))
