"""The reconstructor in training: text to vector, and its head in closed form."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.training import in_every_family
from workers.nla import fidelity
from workers.training.config import Training
from workers.training.fit.reconstructor import Reconstructor, refit_head

D_MODEL = 12
CONFIG = Training(rank=4, alpha=8, learning_rate=1e-3, max_examples=8)


def mapped(rows: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return features, long as those of deep layers, and what a linear map makes of them, as units."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((rows, D_MODEL)) * 40).astype(np.float32)
    vectors = features @ rng.standard_normal((D_MODEL, D_MODEL)) + rng.standard_normal((rows, D_MODEL))
    return features, fidelity.to_unit(vectors)


def agreement(
    head: NDArray[np.float64], features: NDArray[np.float32], units: NDArray[np.float64]
) -> float:
    return float(fidelity.cosine(features @ head.T.astype(np.float32), units.astype(np.float32)).mean())


def test_a_refitted_head_fits_better_than_the_old_one() -> None:
    features, units = mapped(400)
    old = np.eye(D_MODEL)

    head = refit_head(old, features[:300], units[:300], ridge=1.0)

    assert agreement(old, features[300:], units[300:]) < 0.3
    assert agreement(head, features[300:], units[300:]) > 0.9


@pytest.mark.parametrize("ridge", [0.1, 10.0, 1000.0])
def test_no_penalty_makes_a_head_worse_on_its_own_rows(ridge: float) -> None:
    features, units = mapped(400)
    old = np.random.default_rng(1).standard_normal((D_MODEL, D_MODEL))

    head = refit_head(old, features, units, ridge=ridge)

    assert agreement(head, features, units) >= agreement(old, features, units)


def test_an_extreme_penalty_keeps_the_directions_of_the_old_head() -> None:
    features, units = mapped(50)
    old = np.random.default_rng(1).standard_normal((D_MODEL, D_MODEL))
    # Towards the vectors: a head that predicts their opposite is turned, whatever the penalty.
    old *= np.sign(np.sum((features @ old.T) * units))

    head = refit_head(old, features, units, ridge=1e12)

    assert agreement(head, features, features @ old.T) == pytest.approx(1)


def test_the_penalty_does_not_depend_on_how_long_features_are() -> None:
    features, units = mapped(60)
    old = np.eye(D_MODEL)

    short, long = (refit_head(old, features * factor, units, ridge=5.0) for factor in (1, 1000))

    assert short == pytest.approx(long, rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def toy(toy_model: Path) -> Reconstructor:
    return Reconstructor(str(toy_model), CONFIG, layer=1)


@in_every_family
def test_an_untrained_reconstructor_gives_the_models_own_activations(
    toy: Reconstructor, toy_model: Path
) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(toy_model)
    sequences = [[5, 6, 7, 8], [9, 10], [11]]

    rebuilt = toy.rebuild(sequences)

    for sequence, vector in zip(sequences, rebuilt, strict=True):
        states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
        assert fidelity.cosine(states[2][0, -1:].detach().numpy(), vector[None]) > 0.999


def test_the_order_of_prompts_does_not_matter(toy: Reconstructor) -> None:
    sequences = [[5] * length for length in (9, 1, 30, 4)]

    rebuilt, turned = toy.rebuild(sequences), toy.rebuild(sequences[::-1])

    assert fidelity.cosine(rebuilt, turned[::-1]) == pytest.approx(np.ones(4), abs=1e-3)


def test_features_through_the_head_are_what_is_rebuilt(toy: Reconstructor) -> None:
    sequences = [[5, 6, 7], [8, 9]]
    head = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    before = toy.head_weight()

    toy.set_head(head)
    rebuilt, features = toy.rebuild(sequences), toy.features(sequences)
    toy.set_head(before.astype(np.float32))

    assert fidelity.cosine(rebuilt, features @ head.T) == pytest.approx(np.ones(2), abs=1e-3)


def test_the_loss_is_the_squared_distance_of_directions(toy: Reconstructor) -> None:
    sequences = [[5, 6, 7], [8, 9]]
    rebuilt = toy.rebuild(sequences)

    assert toy.loss(sequences, rebuilt * 3).item() == pytest.approx(0, abs=1e-2)
    assert toy.loss(sequences, -rebuilt).item() == pytest.approx(4, abs=1e-2)
