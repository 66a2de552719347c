"""Labels of texts, by the shipped taxonomy and by a small one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import ROOT
from workers.judge.embedder import MiniLmEmbedder
from workers.training.data.labels import Labeller, Taxonomy, load_taxonomy

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


class CompassEmbedder:
    """Texts as directions in the plane: their first number is the angle in degrees."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def compass(areas: dict[str, tuple[str, ...]]) -> Taxonomy:
    topics = {topic: topic for named in areas.values() for topic in named}
    return Taxonomy(version=2, topics=topics, topic_floor=0.1, areas=areas, registers=(), kinds=())


def areas_of(taxonomy: Taxonomy, text: str) -> NDArray[np.float32]:
    found: NDArray[np.float32] = Labeller(taxonomy, CompassEmbedder()).label([text], [text], [True]).areas
    return found


def test_topics_of_one_area_share_what_they_have_in_common() -> None:
    split = areas_of(compass({"north": ("80",), "alone": ("100",)}), "90")
    shared = areas_of(compass({"north": ("80", "85"), "alone": ("100",)}), "90")

    assert split[0].tolist() == pytest.approx([0.5, 0.5])
    assert shared[0, 0] > 0.5
    assert shared.sum() == pytest.approx(1.0)


def test_an_area_is_not_likelier_for_its_many_topics_elsewhere() -> None:
    few = areas_of(compass({"one": ("80",), "other": ("100",)}), "81")
    many = areas_of(compass({"one": ("80",), "other": ("100", "200", "210", "220")}), "81")

    assert many[0, 0] >= few[0, 0]


def test_every_shipped_topic_is_in_its_area_and_areas_are_probabilities(
    taxonomy: Taxonomy, labeller: Labeller
) -> None:
    names = ["cooking", "investing", "football"]

    found = labeller.label(names, names, [True] * 3)

    assert found.areas.sum(axis=1) == pytest.approx(np.ones(3))
    likeliest = [list(taxonomy.areas)[index] for index in found.areas.argmax(axis=1)]
    assert likeliest == [taxonomy.area_of_topics[name] for name in names]
    assert list(taxonomy.area_of_topics) == list(taxonomy.topics)


@pytest.mark.parametrize(
    ("areas", "wrong"),
    [
        ({"a": ("one",)}, "two"),
        ({"a": ("one", "two", "three")}, "three"),
        ({"a": ("one", "two"), "b": ("two",)}, "two"),
    ],
)
def test_a_topic_without_an_area_or_with_two_is_named(
    areas: dict[str, tuple[str, ...]], wrong: str
) -> None:
    topics = {"one": "words", "two": "words"}

    with pytest.raises(ValueError, match=f"wrong: {wrong}"):
        Taxonomy(version=2, topics=topics, topic_floor=0.1, areas=areas, registers=(), kinds=())
