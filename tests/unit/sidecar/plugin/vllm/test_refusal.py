from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin.vllm.refusal import refuse_config, refuse_runner


def config(**changes: Any) -> Any:
    parallel = {
        "pipeline_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "use_ubatching": False,
        **changes.pop("parallel", {}),
    }
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**parallel),
        model_config=SimpleNamespace(
            runner_type=changes.pop("runner_type", "generate"), get_total_num_hidden_layers=lambda: 30
        ),
        speculative_config=changes.pop("speculative", None),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=changes.pop("fast_prefill", False)),
    )


def test_a_plain_engine_is_not_refused() -> None:
    assert refuse_config(config(), 29) is None


@pytest.mark.parametrize("method", ["ngram", "ngram_gpu", "suffix", "medusa", "draft_model"])
def test_an_engine_whose_drafter_takes_no_hidden_states_of_ours_is_not_refused(method: str) -> None:
    assert refuse_config(config(speculative=SimpleNamespace(method=method)), 20) is None


@pytest.mark.parametrize(
    "method",
    [
        "eagle",
        "eagle3",
        "mtp",
        "dflash",
        "dspark",
        "extract_hidden_states",
        "custom_class",
        "one-of-next-year",
    ],
)
def test_drafting_that_is_not_known_to_work_is_refused(method: str) -> None:
    refusal = refuse_config(config(speculative=SimpleNamespace(method=method)), 20)

    assert refusal is not None
    assert refusal.reason == "speculative_method"
    assert repr(method) in refusal.detail
    assert "draft_model, medusa, ngram, ngram_gpu, suffix" in refusal.detail


@pytest.mark.parametrize(
    ("changes", "layer", "reason"),
    [
        ({}, 30, "layer_out_of_range"),
        ({"parallel": {"pipeline_parallel_size": 2}}, 20, "pipeline_parallel"),
        ({"parallel": {"prefill_context_parallel_size": 2}}, 20, "context_parallel"),
        ({"parallel": {"use_ubatching": True}}, 20, "micro_batching"),
        ({"runner_type": "pooling"}, 20, "pooling_model"),
        ({"fast_prefill": True}, 20, "fast_prefill"),
        (
            {"speculative": SimpleNamespace(method="draft_model", enable_adaptive_verification=True)},
            20,
            "adaptive_verification",
        ),
    ],
)
def test_an_engine_that_cannot_be_captured_is_refused_with_its_reason(
    changes: dict[str, Any], layer: int, reason: str
) -> None:
    refusal = refuse_config(config(**changes), layer)

    assert refusal is not None
    assert refusal.reason == reason
    assert refusal.detail


def test_a_runner_that_uses_the_output_itself_is_refused_whatever_its_method_is_called() -> None:
    refusal = refuse_runner(SimpleNamespace(use_aux_hidden_state_outputs=True))

    assert refusal is not None
    assert refusal.reason == "aux_output_in_use"
    assert refuse_runner(SimpleNamespace(use_aux_hidden_state_outputs=False)) is None
