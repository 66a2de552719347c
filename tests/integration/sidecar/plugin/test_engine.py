"""What the plugin reads from configurations that vLLM's own classes made."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.settings import Split
from subtext_sidecar.plugin.vllm.activation import LOGGER
from subtext_sidecar.plugin.vllm.engine import engine_halves

PREFILL = EngineHalves(computes_prompts=True)
DECODE = EngineHalves(writes_answers=True)
BOTH = EngineHalves(computes_prompts=True, writes_answers=True)


def halves(kv_role: str | None, split: Split | None) -> EngineHalves:
    from vllm.config import KVTransferConfig

    config: Any = None
    if kv_role is not None:
        config = KVTransferConfig(kv_connector="NixlConnector", kv_role=kv_role)
    return engine_halves(SimpleNamespace(kv_transfer_config=config), split)


@pytest.mark.parametrize(
    ("kv_role", "split", "expected"),
    [
        (None, None, WHOLE),
        ("kv_producer", None, PREFILL),
        ("kv_consumer", None, DECODE),
        # The role of engines that only offload their cache as well.
        ("kv_both", None, WHOLE),
        ("kv_both", "none", WHOLE),
        ("kv_both", "prefill", PREFILL),
        ("kv_both", "decode", DECODE),
        ("kv_both", "both", BOTH),
        # One configuration for all engines of a deployment.
        ("kv_producer", "both", PREFILL),
        ("kv_consumer", "both", DECODE),
        ("kv_consumer", "none", WHOLE),
    ],
)
def test_a_half_is_what_the_operator_names_and_the_role_of_vllm_allows(
    kv_role: str | None, split: Split | None, expected: EngineHalves
) -> None:
    assert halves(kv_role, split) == expected


@pytest.mark.parametrize(
    ("kv_role", "split"), [(None, "both"), ("kv_producer", "decode"), ("kv_consumer", "prefill")]
)
def test_a_half_that_the_engine_cannot_be_is_none_and_the_log_names_both_settings(
    kv_role: str | None, split: Split, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)

    with caplog.at_level(logging.WARNING, LOGGER):
        assert halves(kv_role, split) == WHOLE

    assert f"additional_config.subtext.split is '{split}', but vLLM's kv_role is {kv_role!r}" in caplog.text
