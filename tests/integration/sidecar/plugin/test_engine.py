"""What the plugin reads from configurations that vLLM's own classes made."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from subtext_sidecar.local.policy import share
from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.settings import CaptureSettings, Split, parse_settings
from subtext_sidecar.plugin.vllm.activation import LOGGER
from subtext_sidecar.plugin.vllm.engine import engine_halves, engines_of
from tests.support.vllm import tiny

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


INTERNAL: dict[str, Any] = {"data_parallel_size": 4}
# Behind a load balancer of others each process knows of all ranks, and serves one or a few.
EXTERNAL: dict[str, Any] = INTERNAL | {"data_parallel_rank": 1}
HYBRID: dict[str, Any] = INTERNAL | {"data_parallel_size_local": 2, "data_parallel_hybrid_lb": True}


@pytest.mark.parametrize(
    ("has_experts", "arguments", "engines"),
    [
        # vLLM refuses external balancing of models without experts: there the operator names `engines`.
        *((False, {}, 1), (False, INTERNAL, 4), (False, HYBRID, 4)),
        *((True, {}, 1), (True, INTERNAL, 4), (True, EXTERNAL, 4), (True, HYBRID, 4)),
    ],
)
def test_all_data_parallel_ranks_share_the_budget(
    *,
    has_experts: bool,
    arguments: dict[str, Any],
    engines: int,
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    from vllm import EngineArgs

    subtext = {"layer": 1, "socket": "ipc://s", "secret_file": "secret", "rows_per_second": 100}

    model = tiny.describe_mixtral(tmp_path) if has_experts else tiny_llama

    args = EngineArgs(model=str(model), **tiny.ENGINE, **arguments, additional_config={"subtext": subtext})
    config = args.create_engine_config()
    assert config.model_config.is_moe is has_experts
    if not has_experts:
        # What vLLM does in the process of each rank, before plugins are loaded there.
        config.parallel_config.reconfigure_for_independent_dp_rank()
        assert config.parallel_config.data_parallel_size == 1
    settings = parse_settings(config.additional_config["subtext"])

    assert engines_of(config, settings) == engines
    shared = share(settings.policy(), engines_of(config, settings))
    assert shared.rows_per_second * engines == 100
    assert shared == replace(settings.policy(), rows_per_second=100 / engines)


def test_the_operator_says_how_many_engines_share_where_vllm_cannot_know() -> None:
    settings = parse_settings({"layer": 1, "socket": "ipc://s", "secret_file": "secret", "engines": 6})
    ranks = {"data_parallel_size": 2, "elastic_ep_max_dp_size": 4}

    def engines(settings: CaptureSettings, *, is_elastic: bool) -> int:
        parallel = SimpleNamespace(**ranks, enable_elastic_ep=is_elastic)
        return engines_of(SimpleNamespace(parallel_config=parallel), settings)

    assert engines(settings, is_elastic=False) == 6
    assert engines(replace(settings, engines=None), is_elastic=False) == 4
    # There may be four ranks one day; two are there.
    assert engines(replace(settings, engines=None), is_elastic=True) == 2
