"""The activation verbalizer (AV): vectors to explanations, on vLLM with prompt embeddings.

The prompt goes in as token ids with one row of `prompt_embeds` filled, so the model embeds every
other token itself (Gemma's embedding scale included) and vLLM's prefix cache keeps what stands
before the vector; vLLM hashes the rows into the cache keys, so vectors never share their blocks.
"""

import os
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.meta import Meta
from workers.nla.prompt import InjectionPrompt, build_injection_prompt
from workers.nla.text_model import is_wrapped_gemma3

OPEN, CLOSE = "<explanation>", "</explanation>"
_EXPLANATION = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)
# The CPU backend takes multiples of 32; its default of 128 is longer than whole prompts, so nothing
# would ever be cached (measured: 2.2 instead of 4.1 readings a second).
_CPU_BLOCK = 32

_ENVIRONMENT = {
    # One process: no second copy of the settings, no child to lose, and closing frees everything.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    # Threads that spin while they wait starve whoever shares the cores, and themselves: beside one
    # busy process on 2 cores, 0.4 readings a second without this and 4.4 with it.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Explanation(NamedTuple):
    """What the AV said about one vector."""

    text: str
    well_formed: bool
    """Whether it stood between the tags; otherwise `text` is all that was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the AV runs."""

    max_new_tokens: int = 96
    """Tags included; official pairs write about 150."""
    max_batch: int = 32
    """Vectors that are read at the same time."""
    gpu_memory_share: float = 0.7
    """Share of a GPU's memory for the AV; the AR needs the rest. Unused on the CPU."""
    seed: int = 0


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what vLLM and OpenMP read once, keeping what the operator set.

    Entry points call it before anything imports torch.
    """
    for name, value in _ENVIRONMENT.items():
        environment.setdefault(name, value)


def parse_explanation(answer: str) -> Explanation:
    """Cut the explanation out of an answer; one that is empty or unclosed is not well formed."""
    # PostgreSQL text cannot hold NUL.
    answer = answer.replace("\x00", "")
    found = _EXPLANATION.search(answer)
    text = found.group(1).strip() if found else answer.replace(OPEN, "").replace(CLOSE, "").strip()
    return Explanation(text, found is not None and text != "")


def rescale(vectors: NDArray[np.float32], norm: float | None) -> NDArray[np.float32]:
    """Give every row of (n, d) the L2 norm of the AV's training; None leaves them as they are.

    Raises ValueError naming the rows that are zero or not finite: they have no direction to read.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if bad.size:
        raise ValueError(f"vectors: rows {bad.tolist()} are zero or not finite; drop them before reading")
    return np.asarray(vectors if norm is None else vectors * (norm / lengths), np.float32)


class Verbalizer:
    """A loaded AV. One instance belongs to one thread."""

    def __init__(self, checkpoint: Path, meta: Meta, tokenizer: Any, settings: EngineSettings) -> None:
        """Check the prompt, then load the engine (7-14 s on a CPU); PromptError before that on drift."""
        self._prompt = build_injection_prompt(meta, tokenizer)
        self._norm = meta.injection_scale
        self._d_model = meta.d_model

        import torch
        import vllm
        from vllm.platforms import current_platform

        self._torch = torch
        on_cpu = bool(current_platform.is_cpu())
        self._engine: Any = vllm.LLM(
            model=str(checkpoint),
            dtype="float32" if on_cpu else "auto",
            enforce_eager=on_cpu,
            enable_prompt_embeds=True,
            enable_prefix_caching=True,
            max_model_len=len(self._prompt.ids) + settings.max_new_tokens,
            max_num_seqs=settings.max_batch,
            seed=settings.seed,
            disable_log_stats=True,
            **_unwrapping(checkpoint),
            **(
                {"block_size": _CPU_BLOCK}
                if on_cpu
                else {"gpu_memory_utilization": settings.gpu_memory_share}
            ),
        )
        self._dtype = self._engine.llm_engine.model_config.dtype
        self._sampling = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=settings.max_new_tokens,
            stop=[CLOSE],
            include_stop_str_in_output=True,
        )

    def verbalize(self, vectors: NDArray[np.float32]) -> list[Explanation]:
        """Return the likeliest explanation of every row of (n, d_model), in order.

        Raises ValueError on rows of another width, of norm zero, or not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._d_model:  # noqa: PLR2004 - rows and columns
            raise ValueError(f"vectors: expected (n, {self._d_model}), got {vectors.shape}")
        if not len(vectors):
            return []
        prompts = [self._inject(row) for row in rescale(vectors, self._norm)]
        outputs = self._engine.generate(prompts, self._sampling, use_tqdm=False)
        return [parse_explanation(output.outputs[0].text) for output in outputs]

    def close(self) -> None:
        """Free the engine's memory; the instance is of no use afterwards."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.llm_engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()

    def _inject(self, row: NDArray[np.float32]) -> dict[str, Any]:
        ids, place = self._prompt
        embeddings = self._torch.zeros((len(ids), self._d_model), dtype=self._dtype)
        embeddings[place] = self._torch.from_numpy(row)
        return {
            "prompt_embeds": embeddings,
            "prompt_token_ids": list(ids),
            "prompt_is_token_ids": mask(self._prompt),
        }


def _unwrapping(checkpoint: Path) -> dict[str, Any]:
    """Return the engine arguments for Gemma 3 inside its multimodal wrapper; none for anything else."""
    if not is_wrapped_gemma3(checkpoint):
        return {}
    import vllm

    from workers.nla import gemma3

    unwrapped = gemma3.UnwrappedGemma3ForCausalLM
    vllm.ModelRegistry.register_model(unwrapped.__name__, f"{unwrapped.__module__}:{unwrapped.__name__}")
    return {"hf_overrides": gemma3.unwrap}


def mask(prompt: InjectionPrompt) -> Sequence[bool]:
    """Tell vLLM which positions are tokens (True) and which is the vector (False)."""
    return [index != prompt.position for index in range(len(prompt.ids))]
