"""Tell whether this engine can be captured at all, from its configuration and its loaded model."""

from typing import Any, Final, NamedTuple

# These own the auxiliary hidden states themselves; taking them over would break drafting.
_AUX_METHODS: Final = frozenset({"eagle3", "dflash", "dspark", "extract_hidden_states"})
_TRANSFORMERS_MULTIMODAL: Final = "vllm.model_executor.models.transformers.multimodal"


class Refusal(NamedTuple):
    """Why capture stays off: a bounded label for metrics, and what to do about it."""

    reason: str
    detail: str


def refuse_config(vllm_config: Any, layer: int) -> Refusal | None:
    """Return why this configuration cannot be captured, or None."""
    return _refuse_parallel(vllm_config.parallel_config) or _refuse_model_config(vllm_config, layer)


def _refuse_model_config(vllm_config: Any, layer: int) -> Refusal | None:
    model = vllm_config.model_config
    if model.runner_type != "generate":
        return Refusal(
            "pooling_model",
            f"runner type {model.runner_type!r} generates no text; capture needs 'generate'",
        )
    method = getattr(vllm_config.speculative_config, "method", None)
    if method in _AUX_METHODS:
        return Refusal(
            "speculative_method", f"speculative method {method!r} owns the auxiliary hidden states"
        )
    if getattr(vllm_config.speculative_config, "enable_adaptive_verification", False):
        # Only the device knows then which rows are whose: the host's view of the batch is a guess.
        return Refusal(
            "adaptive_verification", "capture does not work with adaptive verification of drafts"
        )
    layers = model.get_total_num_hidden_layers()
    if layer >= layers:
        return Refusal("layer_out_of_range", f"layer is {layer}: this model has layers 0 to {layers - 1}")
    return None


def _refuse_parallel(parallel: Any) -> Refusal | None:
    if parallel.pipeline_parallel_size > 1:
        return Refusal(
            "pipeline_parallel", "capture does not work with pipeline parallelism; use tensor parallelism"
        )
    if getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        return Refusal("context_parallel", "capture does not work with prefill context parallelism")
    if getattr(parallel, "use_ubatching", False):
        return Refusal("micro_batching", "capture does not work with dual batch overlap (--enable-dbo)")
    return None


def refuse_model(model: Any) -> Refusal | None:
    """Return why this loaded model cannot be captured, or None."""
    from vllm.model_executor.models.interfaces import supports_eagle3

    name = type(model).__name__
    if not supports_eagle3(model):
        return Refusal(
            "model_class",
            f"{name} has no auxiliary hidden states in this vLLM. For a model of text alone, "
            "--model-impl transformers serves it by a class that has them",
        )
    if any(_TRANSFORMERS_MULTIMODAL in base.__module__ for base in type(model).__mro__):
        # It says that it has them and returns none (seen with Gemma 3), which would break every step.
        return Refusal(
            "model_class", f"{name} returns no auxiliary hidden states; serve it without --model-impl"
        )
    return None


def refuse_runner(runner: Any) -> Refusal | None:
    """Return why this model runner cannot be captured, or None."""
    if runner.use_aux_hidden_state_outputs:
        return Refusal(
            "aux_output_in_use", "the model runner uses the auxiliary hidden states itself, to draft tokens"
        )
    return None
