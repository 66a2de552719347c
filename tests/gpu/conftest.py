"""The texts and the judge of the capture tests."""

from tests.integration.capture.conftest import prompts, reference

__all__ = ["prompts", "reference"]
