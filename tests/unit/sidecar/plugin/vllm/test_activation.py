from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin import register
from subtext_sidecar.plugin.vllm.activation import EXTENSION

KEYED = {"subtext": {"layer": 20}}


class EngineArgs:
    """Shaped like vLLM's: plugins are loaded at the end of its initialisation."""

    def __init__(self, additional_config: Any, worker_extension_cls: str = "", ranks: int = 1) -> None:
        self.additional_config = additional_config
        self.data_parallel_size = ranks
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


def test_the_number_of_ranks_is_added_where_there_are_several_and_the_operator_named_none() -> None:
    named = {"subtext": {"layer": 20, "engines": 6}, "other": 1}

    assert EngineArgs(KEYED, ranks=4).additional_config == {"subtext": {"layer": 20, "engines": 4}}
    assert EngineArgs(named, ranks=4).additional_config == named
    assert EngineArgs(KEYED).additional_config is KEYED
    assert EngineArgs({"subtext": "unusable"}, ranks=4).additional_config == {"subtext": "unusable"}
    assert spawned(KEYED).additional_config is KEYED
    assert KEYED == {"subtext": {"layer": 20}}


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
