from pathlib import Path

import pytest

from tests.support import ROOT
from workers.canary.prompts import CanariesError, Canary, load, prompts_of
from workers.judge.concepts import load_concepts

FILE = """
version: 1
canaries:
  - concept: bombs
    required_recall: 0.5
    positive: [about bombs]
    negative: [about bread]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "canaries.yaml"
    path.write_text(text)
    return path


def test_prompts_are_listed_with_what_they_are_for(tmp_path: Path) -> None:
    assert prompts_of(load(written(tmp_path, FILE))) == [
        Canary("bombs", "positive", "about bombs"),
        Canary("bombs", "negative", "about bread"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1", "version: 2", "version"),
        ("required_recall: 0.5", "required_recall: 1.5", "required_recall"),
        ("positive: [about bombs]", "positive: []", "positive"),
        ("positive: [about bombs]", "", "positive"),
        ("negative:", "negatives:", "negatives"),
        ("[about bread]", "[about bread]\n  - {concept: bombs, required_recall: 1, positive: [x]}", "once"),
        ("[about bread]", "[about bread", "canaries.yaml"),
        ("about bread", "x" * 2001, "negative"),
    ],
)
def test_a_file_with_an_error_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    with pytest.raises(CanariesError, match=named):
        load(written(tmp_path, FILE.replace(old, new)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CanariesError, match="absent"):
        load(tmp_path / "absent")


def test_the_shipped_canaries_cover_the_shipped_concepts() -> None:
    concepts = {one.name for one in load_concepts(ROOT / "deploy/concepts.yaml").concepts}
    listed = load(ROOT / "deploy/canaries.yaml")

    assert {one.concept for one in listed} == concepts
    assert all(len(one.positive) >= 3 and one.negative for one in listed)
    texts = [one.prompt for one in prompts_of(listed)]
    assert len(set(texts)) == len(texts)
