"""Fixtures of the toy models, for both conftest modules of training."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.training import LLAMA, Family, write_home


@pytest.fixture(scope="session")
def toy_family(request: pytest.FixtureRequest) -> Family:
    """The toy model's family: Llama unless a test is parametrized over all."""
    family: Family = getattr(request, "param", LLAMA)
    return family


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SUBTEXT_HOME with three-block models, and a wheel with prompts of real users."""
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    return home


@pytest.fixture(scope="session")
def toy_model(toy_home: Path, toy_family: Family) -> Path:
    return toy_home / toy_family.model


@pytest.fixture(scope="session")
def toy_tokenizer(toy_model: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(toy_model)
