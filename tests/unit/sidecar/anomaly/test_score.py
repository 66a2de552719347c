import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.fit import Direction
from subtext_sidecar.anomaly.reference import AnomalyError
from subtext_sidecar.anomaly.score import (
    ANSWER,
    NO_TEMPLATE,
    PROMPT,
    Detector,
    Measurement,
    Places,
    Reference,
    Template,
)
from tests.support.screens import answers, benign, reference


def measure(detector: Detector, vectors: np.ndarray) -> Measurement:
    return detector.measure(
        vectors, np.linalg.norm(vectors.astype(np.float64), axis=1), answers(len(vectors))
    )


def slow_score(of: Reference, vector: np.ndarray) -> float:
    """The definition, one row at a time and in float64."""
    centred = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64)) - of.mean
    projections = [component.astype(np.float64) @ centred for component in of.components]
    distance = sum(p * p / v for p, v in zip(projections, of.variances, strict=True))
    residual = centred @ centred - sum(p * p for p in projections)
    return float((distance + residual / of.noise - of.location[ANSWER]) / of.scale[ANSWER])


def test_the_score_of_a_whole_block_is_that_of_the_definition() -> None:
    of = reference()
    vectors = np.concatenate([benign(20, seed=5), np.random.default_rng(1).standard_normal((5, 16))])

    measured = measure(Detector(of), vectors.astype(np.float32))

    expected = [slow_score(of, vector.astype(np.float32)) for vector in vectors]
    assert measured.anomaly.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("p_value", [0.01, 0.05, 0.2])
def test_as_many_new_benign_rows_are_found_as_the_p_value_says(p_value: float) -> None:
    measured = measure(Detector(reference()), benign(20_000, seed=7))

    # The threshold itself stands on 2,000 calibration rows.
    spread = 4 * np.sqrt(p_value * (1 - p_value) * (1 / 2000 + 1 / 20_000))
    assert abs(float((measured.p_values <= p_value).mean()) - p_value) < spread


def test_foreign_directions_and_foreign_mixes_are_found() -> None:
    detector = Detector(reference())
    foreign = np.random.default_rng(3).standard_normal((200, 16)).astype(np.float32)
    of = detector.reference
    mix = of.mean + 12 * np.sqrt(of.variances[0]) * of.components[0]

    assert (measure(detector, foreign).p_values <= 0.01).all()
    assert measure(detector, mix[None]).p_values[0] <= 0.01


@given(seed=st.integers(0, 2**31))
@settings(max_examples=5, deadline=None)
def test_p_values_of_exchangeable_vectors_are_super_uniform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((6, 32))
    # Correlated within a document, around a common mean, with norms that vary wildly.
    centres = rng.standard_normal((1200, 1, 6)) @ basis * 0.5
    noise = rng.standard_normal((1200, 4, 6)) @ basis + rng.standard_normal((1200, 4, 32))
    vectors = (centres + noise + 4.0).reshape(-1, 32)
    vectors *= rng.lognormal(3, 1, (len(vectors), 1))
    of = anomaly_fit.fit(vectors[:3200], np.repeat(np.arange(800), 4), model="m", layer=1).reference

    p_values = Detector(of).score(vectors[3200:], answers(1600)).p_values

    for level in (0.01, 0.05, 0.1, 0.25, 0.5):
        # Four standard errors, widened for the four correlated positions of a document and the
        # calibration set's own spread.
        slack = 4 * np.sqrt(level * (1 - level) * 4 * (1 / 1600 + 1 / 1600))
        assert (p_values <= level).mean() <= level + slack


def of_classes(rows: int, seed: int) -> tuple[np.ndarray, Places]:
    """Rows of prompts and of answers in turn; those of prompts vary twice as much."""
    is_prompt = np.arange(rows) % 2 == 0
    vectors = benign(rows, seed=seed).astype(np.float64)
    usual = benign(2000).mean(axis=0)
    vectors[is_prompt] = usual + 2 * (vectors[is_prompt] - usual)
    return vectors, Places(np.arange(rows) + 30, np.full(rows, 7), is_prompt)


def test_each_class_is_ranked_among_its_own() -> None:
    vectors, places = of_classes(8000, seed=1)
    fitted = anomaly_fit.fit(vectors, np.arange(8000) // 8, model="m", layer=1, places=places)
    new, new_places = of_classes(20_000, seed=2)

    measured = Detector(fitted.reference).score(new, new_places)

    assert fitted.pooled_classes == ("template",)
    for number in (PROMPT, ANSWER):
        is_member = new_places.is_prompt == (number == PROMPT)
        assert abs(float((measured.p_values[is_member] <= 0.05).mean()) - 0.05) < 0.03
        assert set(measured.calibration_n[is_member]) == {2000}
    alone = anomaly_fit.fit(vectors, np.arange(8000) // 8, model="m", layer=1).reference
    pooled = Detector(alone).score(new, new_places).p_values
    assert (pooled[new_places.is_prompt] <= 0.05).mean() > 0.08


def test_the_template_is_known_by_its_tokens_and_a_class_of_few_rows_is_pooled() -> None:
    template = Template(special=(1,), words=(7,))
    places = Places(np.arange(4), np.array([1, 1, 7, 7]), np.array([True, False, True, False]))

    assert template.classify(places).tolist() == [0, 0, 0, 2]


def of_template(rows: int, seed: int, spread: float) -> tuple[np.ndarray, Places]:
    """Rows of prompts, every other of which has the template's token and varies by so much more."""
    is_template = np.arange(rows) % 2 == 0
    vectors = benign(rows, seed=seed).astype(np.float64)
    usual = benign(2000).mean(axis=0)
    vectors[is_template] = usual + spread * (vectors[is_template] - usual)
    return vectors, Places(np.arange(rows) + 30, np.where(is_template, 7, 5), np.ones(rows, np.bool_))


@pytest.mark.parametrize(("spread", "is_class"), [(0.5, True), (1.0, True), (2.0, False)])
def test_no_token_of_the_template_makes_a_row_of_a_prompt_less_unusual(
    spread: float,
    is_class: bool,  # noqa: FBT001
) -> None:
    """A client can end his words with one, so a class that would be ranked more leniently is none."""
    vectors, places = of_template(8000, 1, spread)
    fitted = anomaly_fit.fit(
        vectors, np.arange(8000) // 8, model="m", layer=1, places=places, template=Template(words=(7,))
    )

    assert (fitted.reference.template != NO_TEMPLATE) is is_class
    assert ("template" in fitted.pooled_classes) is not is_class
    strange = benign(500, seed=9) * np.linspace(0.2, 3.0, 16)
    written = Places(np.full(500, 60), np.full(500, 5), np.ones(500, np.bool_))
    ended = written._replace(token_ids=np.full(500, 7))
    detector = Detector(fitted.reference)
    assert (detector.score(strange, ended).p_values <= 2 * detector.score(strange, written).p_values).all()


def test_what_one_request_became_is_on_one_side_and_is_judged_apart() -> None:
    vectors, captures = benign(), np.arange(4000) // 4
    whole = anomaly_fit.fit(vectors, captures // 5, model="m", layer=1)
    apart = anomaly_fit.fit(vectors, captures // 5, captures=captures, model="m", layer=1)

    assert np.array_equal(apart.reference.calibration_scores[0], whole.reference.calibration_scores[0])
    assert whole.reference.request_p_values.shape == (100, anomaly_fit.REQUEST_ROWS)
    assert apart.reference.request_p_values.shape == (500, 4)


def test_a_row_before_the_first_position_of_the_reference_is_no_anomaly() -> None:
    vectors, places = of_classes(4000, seed=1)
    of = anomaly_fit.fit(vectors, np.arange(4000) // 8, model="m", layer=1, places=places).reference
    foreign = np.random.default_rng(3).standard_normal((2, 16))

    measured = Detector(of).score(foreign, Places(np.array([29, 30]), np.full(2, 7), np.ones(2, np.bool_)))

    assert of.first_position == 30
    assert measured.p_values.tolist() == [1.0, pytest.approx(of.least_p_value)]


def test_requests_of_the_reference_keep_the_p_values_of_their_rows() -> None:
    of = reference()

    table = of.request_p_values
    assert table.shape == (250, 8)
    assert ((table > 0) & (table < 1)).all()
    assert sorted(table.ravel().tolist()) == pytest.approx((np.arange(1, 2001) / 2001).tolist(), abs=1e-3)


def test_a_long_request_keeps_some_of_its_rows_and_a_short_one_all() -> None:
    documents = np.concatenate([np.zeros(40, int), 1 + np.arange(3960) // 4])

    table = anomaly_fit.fit(benign(4000), documents, model="m", layer=1).reference.request_p_values

    assert table.shape[1] in (4, anomaly_fit.REQUEST_ROWS)  # whichever half the long one fell to
    assert set((table > 0).sum(axis=1)) <= {4, anomaly_fit.REQUEST_ROWS}


def test_no_request_is_on_both_sides_of_the_split() -> None:
    vectors = benign(4000)

    fitted = anomaly_fit.fit(vectors, np.repeat(np.arange(50), 80), model="m", layer=1)

    assert (fitted.fit_rows, fitted.reference.calibration_n) == (2000, 2000)


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"have shape \(1, 5\), the anomaly reference is for rows of 16"):
        Detector(reference()).score(np.ones((1, 5)), answers(1))


def test_only_the_direction_counts() -> None:
    detector = Detector(reference())
    vectors = benign(10, seed=4)

    assert measure(detector, vectors).anomaly == pytest.approx(
        measure(detector, vectors * 0.01).anomaly, abs=1e-4
    )


def test_a_massive_activation_is_told_apart_and_is_no_anomaly() -> None:
    massive = np.zeros((1, 16), np.float32)
    massive[0, 2] = 1e6

    measured = measure(Detector(reference()), massive)

    assert measured.is_massive.tolist() == [True]
    assert measured.p_values.tolist() == [1.0]


def test_massive_rows_do_not_shape_the_reference() -> None:
    vectors = benign()
    documents = np.arange(len(vectors)) // 8
    with_massive = np.concatenate([vectors, np.full((50, 16), 1e6, np.float32)])

    one = anomaly_fit.fit(vectors, documents, model="m", layer=1)
    other = anomaly_fit.fit(
        with_massive, np.concatenate([documents, np.zeros(50, int)]), model="m", layer=1
    )

    assert other.massive_rows == 50
    assert other.reference.mean == pytest.approx(one.reference.mean)


def test_huge_tiny_and_zero_vectors_give_finite_scores() -> None:
    vectors = np.full((3, 16), 1.0, np.float32) * np.array([[3e37], [1e-37], [0.0]], np.float32)

    measured = measure(Detector(reference()), vectors)

    assert np.isfinite(measured.anomaly).all()
    assert ((measured.p_values > 0) & (measured.p_values <= 1)).all()


def test_a_probe_finds_its_direction_and_as_many_benign_rows_as_the_p_value_says() -> None:
    direction = np.random.default_rng(8).standard_normal(16)
    of = reference(directions=[Direction("deceit", direction, None, None)])
    detector = Detector(of)
    steered = benign(50, seed=9) / 100 + 5 * direction.astype(np.float32)

    assert detector.probes_found(measure(detector, steered)).all()
    new = benign(20_000, seed=10)
    assert detector.probes_found(measure(detector, new)).mean() == pytest.approx(0.01, abs=0.01)


def test_a_probe_brings_its_own_mean_and_threshold() -> None:
    direction, mean = np.eye(16)[3] * 7, np.eye(16)[3] * 0.5
    of = reference(directions=[Direction("own", direction, mean, 0.25)])

    measured = measure(Detector(of), (np.eye(16)[[3]] * 40).astype(np.float32))

    assert measured.probes.tolist() == [[pytest.approx(0.5)]]
    assert of.probes[0].threshold == 0.25


def test_a_wide_model_with_few_rows_is_fitted_too() -> None:
    vectors = benign(400, d_model=600)

    of = anomaly_fit.fit(vectors, np.arange(400), model="m", layer=1, p_value=0.1).reference

    assert np.allclose(of.components @ of.components.T, np.eye(len(of.components)), atol=1e-4)
    assert (np.diff(of.variances) <= 0).all()


@pytest.mark.parametrize(
    ("vectors", "documents", "said"),
    [
        (benign(100), np.arange(100), "50 held-out rows are too few for a p-value of 0.01: it needs 1000"),
        (benign(4000), np.arange(4000) % 4, "rows of 4 requests are too few"),
        (np.zeros((4000, 16), np.float32), np.arange(4000), "finite and not zero"),
        (np.ones((4000, 16), np.float32), np.arange(4000), "no spread"),
    ],
)
def test_what_cannot_give_a_reference_is_refused(
    vectors: np.ndarray, documents: np.ndarray, said: str
) -> None:
    with pytest.raises(AnomalyError, match=said):
        anomaly_fit.fit(vectors, documents, model="m", layer=1)


@pytest.mark.parametrize(
    ("direction", "mean", "said"),
    [
        (np.ones(5), None, "must have d_model 16 values"),
        (np.ones(16), np.ones(3), "must have d_model 16 values"),
        (np.zeros(16), None, "not zero"),
        (np.full(16, np.nan), None, "finite"),
    ],
)
def test_a_probe_that_does_not_fit_is_refused(
    direction: np.ndarray, mean: np.ndarray | None, said: str
) -> None:
    with pytest.raises(AnomalyError, match=said):
        reference(directions=[Direction("bad", direction, mean, None)])
