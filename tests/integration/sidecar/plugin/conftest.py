"""Prompts and models of the capture tests, and the Hugging Face models that judge captured rows."""

from pathlib import Path

import pytest

from tests.support.vllm import tiny
from tests.support.vllm.judge import Reference
from tests.support.vllm.prompts import chat_prompts


@pytest.fixture(scope="session")
def prompts(model_dir: Path) -> list[list[int]]:
    """64 different chat prompts of different lengths, as token ids."""
    return chat_prompts(model_dir)


@pytest.fixture(scope="session")
def short_model(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four blocks of SmolLM2: its width, vocabulary and weights at a third of the cost."""
    return tiny.shortened(model_dir, tmp_path_factory.mktemp("short"), blocks=4)


@pytest.fixture(scope="session")
def short_reference(short_model: Path) -> Reference:
    return Reference(short_model)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_gemma3(tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="session")
def tiny_reference(tiny_llama: Path) -> Reference:
    return Reference(tiny_llama)
