import numpy as np
import pytest

from bench import fidelity_themes, probes
from workers.nla.claims import VectorLabels
from workers.training.fit.labels import LabelTargets


def labelled(topic: str | None, kinds: tuple[str, ...] = ()) -> VectorLabels:
    return VectorLabels("prose", "medicine" if topic else None, topic, kinds, {}, {})


def test_only_named_topics_are_right_or_wrong_and_the_rest_abstains() -> None:
    said = [labelled("headaches"), labelled("drugs"), labelled(None, ("fraud",)), labelled("drugs")]
    wanted = LabelTargets(
        np.ones((4, 1), np.float32), np.array([0, 0, 1, 2]), np.zeros(4, int), np.zeros((4, 1), np.float32)
    )

    table = fidelity_themes.topics(said, wanted, ["headaches", "drugs"], np.arange(4), 20)

    # The last row is of no topic at all, so that naming one is wrong.
    assert table["topic_right_where_named"].value == pytest.approx(1 / 3)
    assert table["topic_right_where_named"].n == 3
    assert table["abstained_topic"].value == table["abstained_area"].value == 0.25
    assert table["named_no_kind"].value == 0.75


def test_kinds_are_averaged_over_kinds() -> None:
    def figure(auroc: float, recall: float) -> dict[str, object]:
        interval = {"value": recall, "ci95": [recall - 0.1, recall + 0.1], "n": 30}
        return {"auroc": auroc, "recall_at_1pct_fpr": interval, "requests_with": 30, "requests": 400}

    table = fidelity_themes.kinds({"code": figure(1.0, 0.9), "fraud": figure(0.9, 0.5)})

    assert table["kind_auroc"].value == pytest.approx(0.95)
    assert table["kind_recall"].value == pytest.approx(0.7)
    assert table["kind_recall"].n == 2
    # Two intervals of 0.1 to either side, independent of each other.
    assert table["kind_recall"].low == pytest.approx(0.7 - 0.1 / 2**0.5)
    assert fidelity_themes.kinds({"code": figure(1.0, 0.9)})["kind_recall"].low == pytest.approx(0.8)
    assert table["kind_recall/fraud"].low == 0.4
    assert fidelity_themes.kinds({}) == {}


def test_an_auroc_is_as_sure_as_its_rarer_side_is_large() -> None:
    few, many = (fidelity_themes.auroc_interval(0.9, positives, 400) for positives in (20, 200))

    assert few.low < many.low < 0.9 < many.high < few.high
    # The example of Hanley and McNeil (1982): 0.893 of 51 and 58, standard error 0.032.
    known = fidelity_themes.auroc_interval(0.893, 51, 58)
    assert (known.high - known.low) / 2 / 1.96 == pytest.approx(0.032, abs=0.002)
    assert fidelity_themes.auroc_interval(1.0, 30, 300)[:3] == (1.0, 1.0, 1.0)


def test_a_ratio_to_the_labeller_is_one_where_both_are_right_alike() -> None:
    ours, theirs = np.array([True] * 30 + [False] * 10), np.array([False] * 10 + [True] * 30)

    found = fidelity_themes.ratio(ours, theirs, np.arange(40), rounds=200)

    assert found.value == pytest.approx(1.0)
    assert found.low < 1 < found.high
    assert fidelity_themes.ratio(theirs, ours | theirs, np.arange(40), rounds=50).value == pytest.approx(
        0.75
    )


def test_probes_find_what_is_linear_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, size=2000) * 7
    areas = np.eye(3, dtype=np.float32)[rng.integers(3, size=2000)]
    documents = np.arange(2000) // 4
    noise = rng.standard_normal((2000, 12)).astype(np.float32)
    telling = noise.copy()
    telling[:, :5] += 4 * np.eye(5, dtype=np.float32)[tokens // 7]
    telling[:, 5:8] += 4 * areas

    train, test = slice(0, 1500), slice(1500, None)
    found = probes.fit(telling[train], tokens[train], areas[train], documents[train])
    blind = probes.fit(noise[train], tokens[train], areas[train], documents[train])

    assert (found.next_tokens(telling[test]) == tokens[test]).mean() > 0.9
    assert (found.areas(telling[test]) == areas[test].argmax(axis=1)).mean() > 0.9
    assert (blind.next_tokens(noise[test]) == tokens[test]).mean() < 0.3
    assert (blind.areas(noise[test]) == areas[test].argmax(axis=1)).mean() < 0.45


def test_a_probe_knows_the_commonest_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TOKENS", 2)
    tokens = np.array([3] * 10 + [9] * 8 + [5] * 2)

    found = probes.fit(
        np.ones((20, 2), np.float32), tokens, np.ones((20, 1), np.float32), np.zeros(20, int)
    )

    assert found.token_ids.tolist() == [3, 9]
