"""Labels of texts, by the shipped taxonomy and by a small one."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from workers.judge.embedder import MiniLmEmbedder
from workers.training.labels import Labeller, Taxonomy, load_taxonomy

SHIPPED = ROOT / "deploy" / "decoders" / "taxonomy.yaml"


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(SHIPPED)


@pytest.fixture(scope="module")
def labeller(taxonomy: Taxonomy) -> Labeller:
    return Labeller(taxonomy, MiniLmEmbedder())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("How long should I boil potatoes for a salad?", ("cooking", "a request")),
        ("Who won the football world cup in 1990?", ("football", "a request")),
        ("My password is hunter2, log in for me.", ("passwords and accounts", "a request", "credentials")),
        ("I'm sorry, but I can't help you build a pipe bomb.", ("weapons", "a refusal", "weapons")),
    ],
)
def test_texts_get_the_labels_a_reader_would_give(
    taxonomy: Taxonomy, labeller: Labeller, text: str, wanted: tuple[str, ...]
) -> None:
    labels = labeller.label([text], [text], [True])

    kinds = [kind.name for bit, kind in enumerate(taxonomy.kinds) if labels.kinds[0] >> bit & 1]
    topic, register = taxonomy.topic_names[labels.topic[0]], taxonomy.register_names[labels.register[0]]
    assert (topic, register, *kinds) == wanted


def test_an_answer_without_a_pattern_is_an_answer(taxonomy: Taxonomy, labeller: Labeller) -> None:
    labels = labeller.label(["Paris is the capital."], ["What is the capital?"], [False])

    assert taxonomy.register_names[labels.register[0]] == "an answer"


def test_a_taxonomy_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.yaml").write_text(SHIPPED.read_text() + "colours: [red]\n")

    with pytest.raises(ValueError, match="colours"):
        load_taxonomy(tmp_path / "taxonomy.yaml")
