"""Readings of a request are pooled; what they are not sure of together is not called its theme."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.readings import summarize


def said(area: str | None, kinds: dict[str, float] | None = None, **areas: float) -> dict[str, Any]:
    scores = kinds or {}
    return {
        "area": area,
        "areas": areas,
        "kinds": [kind for kind, score in scores.items() if score >= 0.5],
        "kind_scores": scores,
    }


def test_the_likeliest_area_over_all_readings_is_named_with_its_support() -> None:
    claims = [said("medicine", medicine=0.8)] * 7 + [said("cooking", cooking=0.9), said(None)]

    pooled = summarize(claims)

    assert pooled is not None
    assert pooled.text == "about medicine (7 of 9 readings)"
    assert (pooled.area, pooled.readings_naming_it, pooled.readings) == ("medicine", 7, 9)
    assert pooled.area_probability == pytest.approx(7 * 0.8 / 9)


def test_readings_that_disagree_have_no_theme_together() -> None:
    claims = [said("medicine", medicine=0.6), said("cooking", cooking=0.7), *[said(None, law=0.1)] * 7]

    pooled = summarize(claims)

    assert pooled is not None
    assert pooled.text == "no clear theme in 9 readings"
    assert (pooled.area, pooled.area_probability, pooled.readings_naming_it) == (None, None, 0)


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ([said("law", law=0.9)], "about law (1 of 1 reading)"),
        ([said(None, law=0.2)], "no clear theme in 1 reading"),
        ([said("law", law=0.9), said(None)], "about law (1 of 2 readings)"),
        ([said(None), said(None)], "no clear theme in 2 readings"),
        ([said(None, law=0.4)] * 3, "about law (3 of 3 readings)"),
    ],
)
def test_weak_readings_that_agree_name_a_theme(claims: list[dict[str, Any]], text: str) -> None:
    pooled = summarize(claims)

    assert pooled is not None
    assert pooled.text == text


def test_an_area_that_is_no_readings_likeliest_is_not_named() -> None:
    claims = [said(None, law=0.4, art=0.5), said(None, law=0.4, code=0.5)]

    pooled = summarize(claims)

    assert pooled is not None
    assert pooled.area is None


def test_kinds_are_told_with_mean_maximum_and_how_many_name_them() -> None:
    pooled = summarize(
        [said(None, {"violence": 0.9, "fraud": 0.1}), said(None, {"violence": 0.3}), said(None)]
    )

    assert pooled is not None
    assert [(kind.kind, kind.max_score, kind.readings) for kind in pooled.kinds] == [
        ("violence", 0.9, 1),
        ("fraud", 0.1, 0),
    ]
    assert [kind.mean_score for kind in pooled.kinds] == pytest.approx([0.4, 0.1 / 3])


def test_without_claims_there_is_no_summary() -> None:
    assert summarize([]) is None


PROBABILITIES = st.dictionaries(st.sampled_from(["law", "art", "code"]), st.floats(0.01, 1), max_size=3)
CLAIMS = st.builds(
    lambda area, areas, scores: said(area, scores, **areas),
    st.sampled_from([None, "law", "art", "code"]),
    PROBABILITIES,
    PROBABILITIES,
)


@given(st.lists(CLAIMS, min_size=1, max_size=12), st.randoms())
def test_the_order_of_readings_does_not_matter_and_shares_stay_shares(
    claims: list[dict[str, Any]], random: Any
) -> None:
    shuffled = random.sample(claims, len(claims))

    pooled, again = summarize(claims), summarize(shuffled)

    assert pooled is not None
    assert again is not None
    assert again.readings_naming_it == pooled.readings_naming_it <= pooled.readings == len(claims)
    assert pooled.area_probability is None or 0 <= pooled.area_probability <= 1.0000001
    assert (pooled.area is None) == (pooled.readings_naming_it == 0)
