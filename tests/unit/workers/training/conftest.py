"""Toy models with their own tokenizers: random weights, real architectures, seconds instead of minutes."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.training import Family, write_run
from tests.support.training_fixtures import toy_family, toy_home, toy_model, toy_tokenizer
from workers.training.config import Prompting
from workers.training.data.targets import ReadingWriter

__all__ = ["toy_family", "toy_home", "toy_model", "toy_tokenizer"]


@pytest.fixture(scope="session")
def toy_writer(toy_tokenizer: Any, toy_family: Family) -> ReadingWriter:
    return ReadingWriter(toy_tokenizer, Prompting(**toy_family.prompting))


@pytest.fixture
def toy_config(tmp_path: Path) -> Path:
    """A run file for the toy model, beside its own prompts."""
    return write_run(tmp_path)
