"""The texts and the judge of the capture tests."""

from pathlib import Path

import pytest

from tests.support.vllm.judge import Reference
from tests.support.vllm.prompts import chat_prompts


@pytest.fixture(scope="session")
def prompts(model_dir: Path) -> list[list[int]]:
    """64 different chat prompts of different lengths, as token ids."""
    return chat_prompts(model_dir)


@pytest.fixture(scope="session")
def reference(model_dir: Path) -> Reference:
    return Reference(model_dir)
