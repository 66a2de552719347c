"""Tell whether this engine can be captured at all, from its configuration and its loaded model."""

from typing import Any, Final, NamedTuple

# Their drafters never look at auxiliary hidden states, in either model runner. All others do, or may:
# eagle and mtp take them in place of the model's final states, and then all that they draft is rejected.
_DRAFTING_METHODS: Final = frozenset({"ngram", "ngram_gpu", "suffix", "medusa", "draft_model"})
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
    if method is not None and method not in _DRAFTING_METHODS:
        return Refusal(
            "speculative_method",
            f"speculative method {method!r} drafts from hidden states, or is not known to do without; "
            f"capture works with {', '.join(sorted(_DRAFTING_METHODS))}",
        )
    if vllm_config.cache_config.kv_sharing_fast_prefill:
        # The model returns early then, with final states alone (Gemma 4), and the engine would not start.
        return Refusal(
            "fast_prefill",
            "capture does not work with --kv-sharing-fast-prefill, which leaves prompt rows out",
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
