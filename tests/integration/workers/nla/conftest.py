"""SmolLM2 as an untrained pair: the model itself as AV, its blocks 0..20 and an identity head as AR."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nla.untrained import SETTINGS, write_pair
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import prepare_environment

prepare_environment()


@pytest.fixture(scope="session")
def untrained_pair(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained")
    write_pair(folder, model_dir)
    return folder


@pytest.fixture(scope="module")
def decoder(untrained_pair: Path) -> Iterator[NlaDecoder]:
    """The untrained pair, loaded for real; it babbles, but exactly as the model does."""
    opened = NlaDecoder.open(untrained_pair, SETTINGS)
    yield opened
    opened.close()
