"""Fixtures of the toy models; both conftest modules of training take them in."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.training import LLAMA, Family, write_home


@pytest.fixture(scope="session")
def toy_family(request: pytest.FixtureRequest) -> Family:
    """The toy's family: Llama unless a test asks for every one."""
    family: Family = getattr(request, "param", LLAMA)
    return family


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SUBTEXT_HOME with three-block models, and a wheel of chats that people had."""
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
