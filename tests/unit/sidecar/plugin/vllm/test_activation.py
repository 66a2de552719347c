from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin import register
from subtext_sidecar.plugin.vllm.activation import EXTENSION

KEYED = {"subtext": {"layer": 20}}


class EngineArgs:
    """Shaped like vLLM's: plugins are loaded at the end of its initialisation."""

    def __init__(self, additional_config: Any, worker_extension_cls: str = "") -> None:
        self.additional_config = additional_config
        self.worker_extension_cls = worker_extension_cls
        register()


def spawned(additional_config: Any) -> Any:
    vllm_config = SimpleNamespace(
        additional_config=additional_config, parallel_config=SimpleNamespace(worker_extension_cls="")
    )
    register()
    return vllm_config


def test_the_key_names_the_extension_offline_and_in_spawned_processes() -> None:
    assert EngineArgs(KEYED).worker_extension_cls == EXTENSION
    assert spawned(KEYED).parallel_config.worker_extension_cls == EXTENSION


@pytest.mark.parametrize("additional_config", [None, {}, {"other": {"subtext": 1}}, "subtext", 3])
def test_without_the_key_nothing_is_named(additional_config: Any) -> None:
    assert not EngineArgs(additional_config).worker_extension_cls
    assert not spawned(additional_config).parallel_config.worker_extension_cls


def test_somebody_elses_extension_is_not_displaced() -> None:
    assert EngineArgs(KEYED, "theirs.Extension").worker_extension_cls == "theirs.Extension"


def test_a_caller_without_configuration_is_left_alone() -> None:
    register()


def test_a_caller_that_delegates_attributes_without_end_is_not_asked_for_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class WorkerWrapper:
        """Shaped like vLLM's WorkerWrapperBase while it has no worker."""

        def __init__(self) -> None:
            register()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.worker, name)

    WorkerWrapper()

    assert not caplog.records
