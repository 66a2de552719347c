"""What capture needs to know about the engine it runs in, read from vLLM's configuration."""

from typing import Any

from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.settings import CaptureSettings
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.encoding import Identity, end_token_ids


def identify(vllm_config: Any, settings: CaptureSettings) -> Identity:
    """Return what every record of this engine carries."""
    model_config = vllm_config.model_config
    generation = model_config.try_get_generation_config() or {}
    return Identity(
        model=settings.model or served_name(model_config),
        layer=settings.layer,
        end_token_ids=end_token_ids(
            getattr(model_config.hf_text_config, "eos_token_id", None), generation.get("eos_token_id")
        ),
    )


def row_layout(vllm_config: Any, settings: CaptureSettings) -> Layout:
    """Return what one row of the residual stream ought to be; the first step tells for sure."""
    model_config = vllm_config.model_config
    return Layout(settings.queue_rows, model_config.get_hidden_size(), model_config.dtype)


def context_length(vllm_config: Any) -> int:
    """Return the number of positions that a request can have, prompt and answer together."""
    return int(vllm_config.model_config.max_model_len)


def engine_halves(vllm_config: Any) -> EngineHalves:
    """Return which halves of a prefill/decode split this engine is configured for."""
    transfer = vllm_config.kv_transfer_config
    if transfer is None:
        return WHOLE
    return EngineHalves(
        computes_prompts=bool(transfer.is_kv_producer), writes_answers=bool(transfer.is_kv_consumer)
    )


def served_name(model_config: Any) -> str:
    """Return the first served model name, which is what clients know the model by."""
    names = model_config.served_model_name or model_config.model
    return str(names if isinstance(names, str) else names[0])


def is_emitting_rank() -> bool:
    """Tell whether this worker hands rows over: all tensor-parallel ranks hold the same residual stream."""
    from vllm.distributed.parallel_state import get_tp_group

    return bool(get_tp_group().rank_in_group == 0)


def randomizes_request_ids() -> bool:
    """Tell whether vLLM adds eight random digits to external request ids."""
    from vllm import envs

    return not getattr(envs, "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", False)
