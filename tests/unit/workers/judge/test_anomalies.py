"""Conformal p-values: never too small on exchangeable traffic, small on what is unlike it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.judge.anomalies import AnomalyReference, fit

D_MODEL = 32


def traffic(rng: np.random.Generator, documents: int, per_document: int = 4) -> NDArray[np.float32]:
    """Correlated within a document, around a common mean, with norms that vary wildly."""
    basis = rng.standard_normal((6, D_MODEL))
    centres = rng.standard_normal((documents, 1, 6)) @ basis * 0.5
    noise = rng.standard_normal((documents, per_document, 6)) @ basis + rng.standard_normal(
        (documents, per_document, D_MODEL)
    )
    vectors = (centres + noise + 4.0).reshape(-1, D_MODEL)
    return np.asarray(vectors * rng.lognormal(3, 1, (len(vectors), 1)), np.float32)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=5, deadline=None)
def test_p_values_of_exchangeable_vectors_are_super_uniform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = traffic(rng, documents=600)
    documents = np.repeat(np.arange(600), 4)
    reference = fit(vectors[:1600], documents[:1600])

    p_values = reference.score(vectors[1600:]).p_values

    for level in (0.01, 0.05, 0.1, 0.25, 0.5):
        # Four standard errors, widened for the four correlated positions of a document and the
        # calibration set's own spread.
        slack = 4 * np.sqrt(level * (1 - level) * 4 * (1 / 800 + 1 / 800))
        assert (p_values <= level).mean() <= level + slack


def test_a_planted_direction_gets_the_smallest_p_value() -> None:
    rng = np.random.default_rng(1)
    vectors = traffic(rng, documents=300)
    reference = fit(vectors, np.repeat(np.arange(300), 4))
    planted = rng.standard_normal((20, D_MODEL)) * [[1.0, -1.0] * (D_MODEL // 2)]

    p_values = reference.score(planted).p_values

    assert p_values.max() <= 2 / (reference.calibration_n + 1)


def test_the_norm_alone_is_no_anomaly() -> None:
    vectors = traffic(np.random.default_rng(2), documents=200)
    reference = fit(vectors, np.repeat(np.arange(200), 4))

    np.testing.assert_allclose(
        reference.score(vectors * 1024.0).p_values, reference.score(vectors).p_values, atol=1e-6
    )


def test_no_document_is_on_both_sides_of_the_split() -> None:
    vectors = traffic(np.random.default_rng(3), documents=50)

    reference = fit(vectors, np.repeat(np.arange(50), 4))

    assert reference.calibration_n == 100


def test_a_reference_survives_being_saved() -> None:
    vectors = traffic(np.random.default_rng(4), documents=100)
    reference = fit(vectors, np.repeat(np.arange(100), 4))

    loaded = AnomalyReference.from_arrays(reference.to_arrays())

    before, after = reference.score(vectors), loaded.score(vectors)
    np.testing.assert_allclose(after.p_values, before.p_values, atol=0.02)
    assert loaded.calibration_n == reference.calibration_n


def test_bad_input_names_what_is_wrong() -> None:
    vectors = traffic(np.random.default_rng(5), documents=100)
    reference = fit(vectors)

    with pytest.raises(ValueError, match="too few"):
        fit(vectors[:10])
    with pytest.raises(ValueError, match="use more documents"):
        fit(vectors, np.zeros(len(vectors), np.int64))
    with pytest.raises(ValueError, match="zero vector"):
        reference.score(np.zeros((1, D_MODEL), np.float32))
    with pytest.raises(ValueError, match="shape"):
        reference.score(np.ones((1, 5), np.float32))
    with pytest.raises(ValueError, match="mean, t2_ranked: missing"):
        AnomalyReference.from_arrays(
            {
                name: array
                for name, array in reference.to_arrays().items()
                if name not in {"mean", "t2_ranked"}
            }
        )
