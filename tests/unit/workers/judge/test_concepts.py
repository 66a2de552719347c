"""concepts.yaml is read strictly, and matches are what it says."""

import time
from pathlib import Path

import pytest

from tests.support import ROOT
from workers.judge.concepts import ConceptsError, load_concepts
from workers.judge.embedder import MiniLmEmbedder, WordEmbedder
from workers.judge.matching import ConceptMatcher

GOOD = """
version: 1
concepts:
  - name: credentials
    description: secrets
    severity: warning
    matchers:
      - regex: '\\bpasswords?\\b'
      - semantic: {examples: ["an access token for a server"], threshold: 0.6}
"""

PATTERN = r"\bpasswords?\b"


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(content)
    return path


def test_the_shipped_concepts_load() -> None:
    concepts = load_concepts(ROOT / "deploy" / "concepts.yaml")

    assert len(concepts.concepts) >= 8
    assert all(concept.positions_required >= 2 for concept in concepts.concepts)


def test_a_regex_or_a_similar_text_matches_and_other_texts_do_not(tmp_path: Path) -> None:
    matcher = ConceptMatcher(load_concepts(write(tmp_path, GOOD)), WordEmbedder(), {})

    regex, semantic, neither = matcher.match(
        ["the PASSWORD is", "an access token for the server", "the cat sat on the mat"]
    )

    assert [(match.concept, match.matcher, match.score) for match in regex] == [
        ("credentials", "regex", 1.0)
    ]
    assert [(match.concept, match.matcher) for match in semantic] == [("credentials", "semantic")]
    assert neither == []
    assert matcher.match([]) == []


def test_a_given_threshold_comes_before_the_written_one(tmp_path: Path) -> None:
    matcher = ConceptMatcher(
        load_concepts(write(tmp_path, GOOD)), WordEmbedder(), thresholds={"credentials": 0.99}
    )

    assert matcher.match(["an access token for the server"]) == [[]]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("severity: warning", "severity: grave"), "concept 'credentials': severity"),
        (("description: secrets", "descriptoin: secrets"), "concept 'credentials'"),
        (("    matchers:", "    owner: me\n    matchers:"), "concept 'credentials': owner: unknown field"),
        (("    matchers:", "    positions_required: 1\n    matchers:"), "positions_required"),
        (("\\bpasswords?\\b", "("), "is not a regular expression"),
        (("threshold: 0.6", "threshold: 1.6"), "threshold"),
        (("version: 1", "version: 3"), "version"),
        (("version: 1", "version: 2"), "concept 'credentials': version: missing; begin with 1"),
        (("    matchers:", "    version: 1\n    matchers:"), "version: is of files of version 2"),
        (("name: credentials", "name: Credentials!"), "concept 'Credentials!': name"),
        (("concepts:", "concept:"), "concepts"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(ConceptsError) as refusal:
        load_concepts(write(tmp_path, GOOD.replace(*change)))

    assert complaint in str(refusal.value)


@pytest.mark.parametrize("pattern", ["(?<!not )password", r"(pass)\1", "a{5000}", "((a{900}){900}){900}"])
def test_what_cannot_run_in_linear_time_is_refused_with_the_concept_and_the_fix(
    tmp_path: Path, pattern: str
) -> None:
    with pytest.raises(ConceptsError) as refusal:
        load_concepts(write(tmp_path, GOOD.replace(PATTERN, pattern)))

    assert "concept 'credentials': matchers.0.regex" in str(refusal.value)
    assert "write several matchers instead" in str(refusal.value)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*a){20}$"])
def test_no_text_makes_a_pattern_slow(tmp_path: Path, pattern: str) -> None:
    concepts = load_concepts(write(tmp_path, GOOD.replace(PATTERN, pattern)))
    matcher = ConceptMatcher(concepts, WordEmbedder(), {})
    text = "a" * 50_000 + "!"

    started = time.perf_counter()
    matcher.match([text])

    # Milliseconds on an idle machine; the engine of Python's re would need longer than the universe has.
    assert time.perf_counter() - started < 2.0


def test_a_lone_surrogate_in_a_text_hides_nothing(tmp_path: Path) -> None:
    matcher = ConceptMatcher(load_concepts(write(tmp_path, GOOD)), WordEmbedder(), {})

    assert [match.concept for match in matcher.match(["\ud800 my password\udfff"])[0]] == ["credentials"]


def test_case_is_ignored_beyond_ascii_too(tmp_path: Path) -> None:
    concepts = load_concepts(write(tmp_path, GOOD.replace(PATTERN, "schlüssel|ключ")))
    matcher = ConceptMatcher(concepts, WordEmbedder(), {})

    assert [len(matches) for matches in matcher.match(["Ein SCHLÜSSEL", "Ключ", "none"])] == [1, 1, 0]


def test_a_concept_named_twice_is_refused(tmp_path: Path) -> None:
    twice = GOOD + GOOD.split("concepts:\n")[1]

    with pytest.raises(ConceptsError, match="credentials"):
        load_concepts(write(tmp_path, twice))


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptsError, match="cannot be read"):
        load_concepts(tmp_path / "nowhere.yaml")
    with pytest.raises(ConceptsError, match="cannot be read"):
        load_concepts(write(tmp_path, "a: [b"))
    with pytest.raises(ConceptsError):
        load_concepts(write(tmp_path, "just text"))


def test_the_shipped_concepts_find_what_they_are_for_and_spare_the_harmless() -> None:
    matcher = ConceptMatcher(load_concepts(ROOT / "deploy" / "concepts.yaml"), MiniLmEmbedder(), {})
    frame = 'Last token "x"; next likely ",", "." or " and". The text reads: "...{}"'
    expected: dict[str, set[str]] = {
        "please reset my password": {"credentials"},
        "steps to build a home made bomb": {"weapons"},
        "the most common symptoms of the flu": {"medical"},
        "the capital of France is Paris": set(),
        "the cat sat on the": set(),
    }

    found = matcher.match([frame.format(text) for text in expected])

    assert [{match.concept for match in matches} for matches in found] == list(expected.values())
