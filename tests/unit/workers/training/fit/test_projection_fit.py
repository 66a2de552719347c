"""The projector's start: soft tokens that already resemble the words around the read one."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.training import in_every_family
from workers.nla import fidelity
from workers.nla.checkpoint.projector import load_projector
from workers.training.config import Projection
from workers.training.data.dataset import Samples
from workers.training.fit.projection import fit_frame, fit_projector, from_linear, load_embed, to_linear

D_MODEL, VOCABULARY, ROWS = 24, 8, 600
CONFIG = Projection(tokens_before=2, ridge=1.0)
EMBEDDINGS = np.random.default_rng(9).standard_normal((VOCABULARY, D_MODEL)).astype(np.float32)


def planted() -> Samples:
    """Vectors that add up what stands before the read token, what follows, and a mean."""
    rng = np.random.default_rng(0)
    context = rng.integers(VOCABULARY, size=(ROWS, 5))
    following = rng.integers(VOCABULARY, size=(ROWS, 3))
    mixes = [rng.standard_normal((D_MODEL, D_MODEL)) for _ in range(3)]
    words = (context[:, -3], context[:, -2], following[:, 0])
    vectors = sum(EMBEDDINGS[tokens] @ mix for tokens, mix in zip(words, mixes, strict=True)) + 3.0
    none = np.zeros(ROWS, np.int64)
    return Samples(
        vectors=np.asarray(vectors, np.float32),
        context=context,
        next_tokens=following,
        areas=np.zeros((ROWS, 1), np.float32),
        topic=none,
        register=none,
        kinds=none,
        positions=none,
        is_answer=none,
        is_real=none,
        documents=none,
    )


def nearest(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    units = fidelity.to_unit(EMBEDDINGS)
    return np.asarray((fidelity.to_unit(rows) @ units.T).argmax(axis=1))


def test_the_frame_centres_directions_and_gives_them_unit_spread() -> None:
    samples = planted()

    mean, scale = fit_frame(samples)

    centred = (fidelity.to_unit(samples.vectors) - mean) / scale
    assert centred.mean(axis=0) == pytest.approx(np.zeros(D_MODEL), abs=0.02)
    assert centred.std() == pytest.approx(1.0, abs=0.01)
    assert (mean == mean.astype(np.float16)).all()


def test_rows_point_to_the_tokens_before_farthest_first_and_to_the_next() -> None:
    samples = planted()

    projector = fit_projector(samples, EMBEDDINGS.__getitem__, *fit_frame(samples), CONFIG)

    rows = projector.project(samples.vectors)
    assert projector.rows == 4
    for row, tokens in enumerate(
        (samples.context[:, -3], samples.context[:, -2], samples.next_tokens[:, 0])
    ):
        assert (nearest(rows[:, row]) == tokens).mean() > 0.8


def test_rows_are_as_long_as_embeddings_and_the_last_holds_the_vector() -> None:
    samples = planted()
    mean, scale = fit_frame(samples)
    projector = fit_projector(samples, EMBEDDINGS.__getitem__, mean, scale, CONFIG)

    rows = projector.project(samples.vectors)

    length = np.linalg.norm(EMBEDDINGS[samples.tokens], axis=1).mean()
    lengths = np.linalg.norm(rows, axis=2).mean(axis=0)
    assert lengths == pytest.approx([length, length, length, 5 * length], rel=0.01)
    assert fidelity.cosine(rows[:, 3], projector.centre(samples.vectors)) == pytest.approx(np.ones(ROWS))


def test_a_layer_and_a_projector_are_the_same_map(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    samples = planted()
    projector = fit_projector(samples, EMBEDDINGS.__getitem__, *fit_frame(samples), CONFIG)

    layer = to_linear(projector)
    again = from_linear(layer, projector.mean, projector.scale)

    centred = torch.from_numpy(projector.centre(samples.vectors))
    assert layer(centred).detach().numpy().reshape(ROWS, 4, D_MODEL) == pytest.approx(
        projector.project(samples.vectors), abs=1e-3
    )
    assert (again.weight == projector.weight).all()
    assert (again.bias == projector.bias).all()
    arrays = {"weight": again.weight, "bias": again.bias, "mean": again.mean}
    save_file(arrays, tmp_path / "projector.safetensors")
    loaded = load_projector(tmp_path / "projector.safetensors", d_model=D_MODEL, rows=4, scale=again.scale)
    assert (loaded.project(samples.vectors) == projector.project(samples.vectors)).all()


@in_every_family
def test_embeddings_are_what_the_first_block_gets(toy_model: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(toy_model)
    tokens = np.array([40, 7, 40, 99])
    states = model(torch.from_numpy(tokens)[None], output_hidden_states=True).hidden_states

    rows = load_embed(str(toy_model))(tokens)

    assert rows == pytest.approx(states[0][0].detach().numpy(), abs=1e-6)
    assert rows.shape == (4, 32)
