"""The activation verbalizer (AV): writes explanations of vectors, on vLLM with prompt embeddings.

The prompt consists of token ids, and `prompt_embeds` holds only the injected rows. The model therefore
embeds all other tokens itself, including Gemma's embedding scale, and vLLM's prefix cache covers the prompt
up to the vector. vLLM hashes the embeddings into the cache keys, so different vectors never share blocks
after the injection, while the candidates of one vector share its whole prompt.
"""

import os
import re
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import claims
from workers.nla.checkpoint.meta import Meta
from workers.nla.checkpoint.text_model import is_wrapped_gemma3
from workers.nla.claims import Continuation, VectorLabels
from workers.nla.decoder import GivenFacts
from workers.nla.engine.injector import Injector, check_directions
from workers.nla.engine.precision import ProductType
from workers.nla.engine.prompt import InjectedPrompt

OPEN, CLOSE = "<explanation>", "</explanation>"
_EXPLANATION = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)
# The CPU backend accepts multiples of 32. Its default of 128 exceeds whole prompts, so nothing would ever
# be cached (measured: 2.2 instead of 4.1 readings per second).
_CPU_BLOCK = 32
_NEW_TOKENS, _NEW_TOKENS_BEHIND_LABELS = 96, 40

_ENVIRONMENT = {
    # In one process there is no child that can die, and closing the engine frees its memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    # Spinning threads starve each other on shared cores. Measured beside one busy process on 2 cores:
    # 0.4 readings per second with spinning, 4.4 with passive waiting.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Explanation(NamedTuple):
    """One candidate."""

    text: str
    """The text that the AR gets."""
    well_formed: bool
    """Whether the answer is complete and in the pair's format; otherwise `text` is the whole output."""
    labelled: VectorLabels | None = None
    """The vector's labels; None for a pair without a label head."""
    continuation: Continuation | None = None
    """The parts of the AV's answer; None for a pair without labels or a broken format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Settings of the AV's engine, and the AR's precision."""

    max_new_tokens: int | None = None
    """None means 96, tags included (official pairs write about 150), or 40 for a pair with labels."""
    candidates: int = 4
    """Candidates per vector."""
    temperature: float = 0.8
    """Used with several candidates; a single candidate is decoded greedily."""
    max_batch: int = 64
    """Candidates that are written concurrently."""
    gpu_memory_share: float = 0.7
    """Share of a GPU's memory for the AV; the AR needs the rest. Unused on the CPU."""
    seed: int = 0
    products: ProductType = "auto"
    """Precision of the AR's matrix products; bit-exact comparisons need float32."""

    def new_tokens(self, *, has_labels: bool) -> int:
        """Return the maximum length of an answer, in tokens."""
        return self.max_new_tokens or (_NEW_TOKENS_BEHIND_LABELS if has_labels else _NEW_TOKENS)


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set defaults for variables that vLLM and OpenMP read once; the operator's values win.

    Entry points must call this before torch is imported.
    """
    for name, value in _ENVIRONMENT.items():
        environment.setdefault(name, value)


def parse_explanation(answer: str) -> Explanation:
    """Extract the explanation from an answer; an empty or unclosed one is not well formed."""
    # PostgreSQL text cannot hold NUL.
    answer = answer.replace("\x00", "")
    match = _EXPLANATION.search(answer)
    text = match.group(1).strip() if match else answer.replace(OPEN, "").replace(CLOSE, "").strip()
    return Explanation(text, match is not None and text != "")


def parse_labelled(answer: str, labelled: VectorLabels, *, is_finished: bool) -> Explanation:
    """Prepend the labels' sentence to the AV's answer; an unfinished answer is not well formed."""
    answer, sentence = answer.replace("\x00", ""), claims.first_sentence(labelled)
    continuation = claims.parse_continuation(answer)
    if continuation is None:
        return Explanation(f"{sentence}{claims.EXPECTS}{answer}", well_formed=False, labelled=labelled)
    return Explanation(claims.explanation(sentence, continuation), is_finished, labelled, continuation)


class Verbalizer:
    """A loaded AV. Not thread-safe."""

    def __init__(self, checkpoint: Path, meta: Meta, tokenizer: Any, settings: EngineSettings) -> None:
        """Check prompt, projector and labels, then load the engine (7-14 s on a CPU).

        Raises PromptError or MetaError before the engine is loaded.
        """
        self.injector = Injector(checkpoint, meta, tokenizer)
        self._d_model = meta.d_model
        self._settings = settings
        self._new_tokens = settings.new_tokens(has_labels=meta.labels is not None)

        import torch
        import vllm
        from vllm.platforms import current_platform

        self._torch = torch
        self._vllm = vllm
        on_cpu = bool(current_platform.is_cpu())
        with _without(checkpoint, meta.extra_files) as model:
            self._engine: Any = vllm.LLM(
                model=str(model),
                dtype="float32" if on_cpu else "auto",
                enforce_eager=on_cpu,
                enable_prompt_embeds=True,
                enable_prefix_caching=True,
                max_model_len=self.injector.longest_prompt + self._new_tokens,
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

    @property
    def candidates(self) -> int:
        """Default number of candidates per vector."""
        return self._settings.candidates

    @property
    def facts(self) -> dict[str, Any]:
        """What a text depends on besides checkpoint, vector and token."""
        settings = self._settings
        return {
            "vllm": str(self._vllm.__version__),
            "dtype": str(self._dtype).removeprefix("torch."),
            "temperature": settings.temperature,
            "seed": settings.seed,
            "max_new_tokens": self._new_tokens,
        }

    def verbalize(
        self, vectors: NDArray[np.float32], given: GivenFacts, n: int | None = None
    ) -> list[list[Explanation]]:
        """Return `n` explanations (default `candidates`) of every row of (rows, d_model), in order.

        Equal vectors at equal tokens get equal explanations. Raises ValueError on another width, and on
        zero or non-finite rows.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._d_model:  # noqa: PLR2004 - rows and columns
            raise ValueError(f"vectors: expected (n, {self._d_model}), got {vectors.shape}")
        if len(given.token_ids) != len(vectors):
            raise ValueError(f"token_ids: {len(given.token_ids)} for {len(vectors)} vectors")
        check_directions(vectors)
        if not len(vectors):
            return []
        labelled = self.injector.label(vectors)
        prompts = [
            self._inject(rows, token_id, labels)
            for rows, token_id, labels in zip(
                self.injector.project(vectors), given.token_ids, labelled, strict=True
            )
        ]
        sampling = self._sampling(n or self._settings.candidates)
        outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
        return [
            [self._parse(answer, labels) for answer in output.outputs]
            for output, labels in zip(outputs, labelled, strict=True)
        ]

    def _sampling(self, n: int) -> Any:
        settings, end_id = self._settings, self.injector.prompt.end
        if end_id is None:
            ends: dict[str, Any] = {"stop": [CLOSE], "include_stop_str_in_output": True}
        else:
            # Quotes may contain any other special token. The ids are decoded in one step, as in training:
            # a streaming detokenizer drops an incomplete character at the end.
            ends = {"stop_token_ids": [end_id], "ignore_eos": True, "detokenize": False}
        return self._vllm.SamplingParams(
            n=n,
            temperature=settings.temperature if n > 1 else 0.0,
            # A seed per request makes the result independent of the batch.
            seed=settings.seed,
            max_tokens=self._new_tokens,
            **ends,
        )

    def _parse(self, answer: Any, labelled: VectorLabels | None) -> Explanation:
        prompt = self.injector.prompt
        if prompt.end is None:
            return parse_explanation(answer.text)
        text, is_finished = prompt.decode(answer.token_ids), answer.finish_reason == "stop"
        if labelled is not None:
            return parse_labelled(text, labelled, is_finished=is_finished)
        text = text.replace("\x00", "").strip()
        return Explanation(text, well_formed=is_finished and text != "")

    def close(self) -> None:
        """Free the engine's memory; the instance is unusable afterwards."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.llm_engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()

    def _inject(
        self, rows: NDArray[np.float32], token_id: int, labelled: VectorLabels | None
    ) -> dict[str, Any]:
        sentence = "" if labelled is None else claims.first_sentence(labelled)
        prompt = self.injector.prompt.build(token_id, sentence)
        embeddings = self._torch.zeros((len(prompt.ids), self._d_model), dtype=self._dtype)
        embeddings[prompt.position : prompt.position + prompt.rows] = self._torch.from_numpy(rows)
        return {
            "prompt_embeds": embeddings,
            "prompt_token_ids": list(prompt.ids),
            "prompt_is_token_ids": mask(prompt),
        }


@contextmanager
def _without(checkpoint: Path, extra_files: Sequence[str]) -> Iterator[Path]:
    """Yield a view of the checkpoint without `extra_files`, which vLLM would load as model weights."""
    if not extra_files:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="subtext-av-") as folder:
        for path in checkpoint.iterdir():
            if path.name not in extra_files:
                (Path(folder) / path.name).symlink_to(path.resolve())
        yield Path(folder)


def _unwrapping(checkpoint: Path) -> dict[str, Any]:
    """Return the engine arguments for Gemma 3 in its multimodal wrapper; empty for other models."""
    if not is_wrapped_gemma3(checkpoint):
        return {}
    import vllm

    from workers.nla.engine import gemma3

    unwrapped = gemma3.UnwrappedGemma3ForCausalLM
    vllm.ModelRegistry.register_model(unwrapped.__name__, f"{unwrapped.__module__}:{unwrapped.__name__}")
    return {"hf_overrides": gemma3.unwrap}


def mask(prompt: InjectedPrompt) -> Sequence[bool]:
    """Return which positions are tokens (True) and which are embeddings (False)."""
    return [not 0 <= index - prompt.position < prompt.rows for index in range(len(prompt.ids))]
