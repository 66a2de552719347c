"""What capture needs to know about the engine it runs in, read from vLLM's configuration."""

import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.settings import SPLIT, CaptureSettings, Split
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.encoding import Identity, end_token_ids
from subtext_sidecar.plugin.vllm.activation import LOGGER

_HALVES: Final[dict[Split, EngineHalves]] = {
    "none": WHOLE,
    "prefill": EngineHalves(computes_prompts=True),
    "decode": EngineHalves(writes_answers=True),
    "both": EngineHalves(computes_prompts=True, writes_answers=True),
}


def identify(vllm_config: Any, settings: CaptureSettings) -> Identity:
    """Return what every record of this engine carries."""
    model_config = vllm_config.model_config
    generation = model_config.try_get_generation_config() or {}
    return Identity(
        model=settings.model or served_name(model_config),
        layer=settings.layer,
        tenant=settings.tenant,
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


def engine_halves(vllm_config: Any, split: Split | None) -> EngineHalves:
    """Return which halves of a prefill/decode split this engine serves.

    ``split`` is the operator's word. Without it kv_producer and kv_consumer are one half each, and kv_both
    is none: engines that only offload their cache have that role as well. What vLLM's kv_role rules out
    is left out, so that one configuration can serve all engines of a deployment.
    """
    transfer = vllm_config.kv_transfer_config
    produces = transfer is not None and bool(transfer.is_kv_producer)
    consumes = transfer is not None and bool(transfer.is_kv_consumer)
    if split is None:
        return WHOLE if produces and consumes else EngineHalves(produces, consumes)
    named = _HALVES[split]
    halves = EngineHalves(named.computes_prompts and produces, named.writes_answers and consumes)
    if split != "none" and halves == WHOLE:
        logging.getLogger(LOGGER).warning(
            "subtext: %s is %r, but vLLM's kv_role is %r: this engine counts as no half of a split; change "
            "kv_role in --kv-transfer-config, or leave %s out",
            *(SPLIT, split, None if transfer is None else transfer.kv_role, SPLIT),
        )
    return halves


def engines_of(vllm_config: Any, settings: CaptureSettings) -> int:
    """Return how many engines share the budget, this one included.

    vLLM tells a rank of a model without experts that it is alone, but leaves the largest number of ranks as
    it was, which is their number where it cannot change (``enable_elastic_ep``).
    """
    parallel = vllm_config.parallel_config
    ranks = parallel.data_parallel_size
    if not parallel.enable_elastic_ep:
        ranks = max(ranks, parallel.elastic_ep_max_dp_size)
    return settings.engines or int(ranks)


def served_name(model_config: Any) -> str:
    """Return the first served model name, which is what clients know the model by."""
    names = model_config.served_model_name or model_config.model
    return str(names if isinstance(names, str) else names[0])


def program_versions() -> dict[str, str | None]:
    """Return the versions of vLLM and of the plugin, None where they do not tell."""
    # vLLM's package has another name on other devices; its module runs already.
    return {"vllm": getattr(sys.modules.get("vllm"), "__version__", None), "subtext": _own_version()}


def _own_version() -> str | None:
    try:
        # By itself where vLLM runs: the distribution "subtext" is of worker and service.
        return version("subtext-sidecar")
    except PackageNotFoundError:
        return None


def is_emitting_rank() -> bool:
    """Tell whether this worker hands rows over: all tensor-parallel ranks hold the same residual stream."""
    from vllm.distributed.parallel_state import get_tp_group

    return bool(get_tp_group().rank_in_group == 0)


def randomizes_request_ids() -> bool:
    """Tell whether vLLM adds eight random digits to external request ids."""
    from vllm import envs

    return not getattr(envs, "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", False)
