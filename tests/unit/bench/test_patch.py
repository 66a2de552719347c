from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.patch import MEAN, ChatsError, Patcher, measure_kl, measure_removed, replacements
from tests.support.nla import toy
from workers.training.data.activations import ActivationReader

TOKENS = [4000, 5000, 6000, 7000, 8000]


@pytest.fixture(scope="module")
def base(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_base(tmp_path_factory.mktemp("base"), model_dir)


def read(base: Path, places: Sequence[int]) -> NDArray[np.float32]:
    return ActivationReader(str(base), layer=toy.LAYER).read([TOKENS], [places])[0].vectors


def test_the_true_vector_in_its_place_changes_nothing_and_another_does(base: Path) -> None:
    vector = read(base, [4])
    other = np.roll(vector, 1, axis=1)

    patched = Patcher(base, layer=toy.LAYER).patch(TOKENS, np.concatenate([vector, other]))

    assert patched.seen == pytest.approx(vector[0], abs=1e-4)
    assert patched.kl[0] == pytest.approx(0, abs=1e-6)
    assert patched.kl[1] > 0.01


def test_only_the_last_position_is_patched(base: Path) -> None:
    vectors = read(base, [2, 4])
    patcher = Patcher(base, layer=toy.LAYER)

    kl = measure_kl(
        patcher, vectors, [TOKENS[:3], TOKENS], {"same": vectors, "half": np.float32(0.5) * vectors}
    )

    assert kl["same"] == pytest.approx(0, abs=1e-6)
    assert (kl["half"] > 0).all()


def test_chats_of_other_vectors_are_refused(base: Path) -> None:
    vectors = read(base, [4])

    with pytest.raises(ChatsError, match="row 0: the model's own vector there has cosine"):
        measure_kl(Patcher(base, layer=toy.LAYER), vectors, [TOKENS[:2]], {"same": vectors})


def test_replacements_have_the_true_norms() -> None:
    vectors = np.array([[3, 4], [0, 2]], np.float32)

    found = replacements(vectors, {"one": np.array([[1, 0], [1, 0]]), MEAN: np.array([0, 0.1])})

    assert found["one"] == pytest.approx(np.array([[5, 0], [2, 0]]))
    assert found[MEAN] == pytest.approx(np.array([[0, 5], [0, 2]]))


def test_what_is_removed_is_measured_against_the_ablation() -> None:
    kl = {"best": np.array([1.0, 1.0]), "null": np.array([4.0, 4.0]), MEAN: np.array([1.0, 3.0])}

    table = measure_removed(kl, np.array([0, 1]), rounds=50)

    assert table["patch_removed_best"].value == pytest.approx(0.5)
    assert table["patch_removed_null"].value == pytest.approx(-1.0)
    assert "patch_removed_mean" not in table
    assert table["patch_kl_mean"].value == 2.0
