"""The activation verbalizer (AV): vectors to explanations, on vLLM with prompt embeddings.

The prompt goes in as token ids with the injected rows of `prompt_embeds` filled, so the model embeds
every other token itself (Gemma's embedding scale included) and vLLM's prefix cache keeps what stands
before the vector; vLLM hashes the rows into the cache keys, so vectors never share their blocks, and the
candidates of one vector share all of its prompt.
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
# The CPU backend takes multiples of 32; its default of 128 is longer than whole prompts, so nothing
# would ever be cached (measured: 2.2 instead of 4.1 readings a second).
_CPU_BLOCK = 32
_NEW_TOKENS, _NEW_TOKENS_BEHIND_LABELS = 96, 40

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
    """What the AV said about one vector, once."""

    text: str
    """What the AR is shown."""
    well_formed: bool
    """Whether it kept the pair's format to its end; otherwise `text` is all that was said."""
    labelled: VectorLabels | None = None
    """What the label head says about the vector; None for a pair without one."""
    continuation: Continuation | None = None
    """The parts of what a pair with labels wrote; None where it lost the format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the AV runs, and in which precision the AR."""

    max_new_tokens: int | None = None
    """None: 96, tags included (official pairs write about 150), and 40 for a pair with labels."""
    candidates: int = 4
    """Readings of every vector, of which the one that rebuilds it best is kept."""
    temperature: float = 0.8
    """Of more than one candidate; a single one is the likeliest text."""
    max_batch: int = 64
    """Candidates that are written at the same time."""
    gpu_memory_share: float = 0.7
    """Share of a GPU's memory for the AV; the AR needs the rest. Unused on the CPU."""
    seed: int = 0
    products: ProductType = "auto"
    """Precision of the AR's matrix products; what is compared to the last digit needs float32."""

    def new_tokens(self, *, has_labels: bool) -> int:
        """Return the longest answer."""
        return self.max_new_tokens or (_NEW_TOKENS_BEHIND_LABELS if has_labels else _NEW_TOKENS)


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


def parse_labelled(answer: str, labelled: VectorLabels, *, is_finished: bool) -> Explanation:
    """Put the sentence of the labels before what the AV wrote behind it; cut off is not well formed."""
    answer, sentence = answer.replace("\x00", ""), claims.first_sentence(labelled)
    continuation = claims.parse_continuation(answer)
    if continuation is None:
        return Explanation(f"{sentence}{claims.EXPECTS}{answer}", well_formed=False, labelled=labelled)
    return Explanation(claims.explanation(sentence, continuation), is_finished, labelled, continuation)


class Verbalizer:
    """A loaded AV. One instance belongs to one thread."""

    def __init__(self, checkpoint: Path, meta: Meta, tokenizer: Any, settings: EngineSettings) -> None:
        """Check prompt, projector and labels, then load the engine (7-14 s on a CPU).

        PromptError or MetaError before that on what does not fit.
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
        """How many explanations of a vector are written where nobody asks for another number."""
        return self._settings.candidates

    def verbalize(
        self, vectors: NDArray[np.float32], given: GivenFacts, n: int | None = None
    ) -> list[list[Explanation]]:
        """Return `n` explanations of every row of (rows, d_model), in order; by default `candidates`.

        The same vector at the same token always gets the same ones. Raises ValueError on rows of another
        width, of norm zero, or not finite.
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
            self._inject(rows, token_id, said)
            for rows, token_id, said in zip(
                self.injector.project(vectors), given.token_ids, labelled, strict=True
            )
        ]
        sampling = self._sampling(n or self._settings.candidates)
        outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
        return [
            [self._parse(answer, said) for answer in output.outputs]
            for output, said in zip(outputs, labelled, strict=True)
        ]

    def _sampling(self, n: int) -> Any:
        settings, end_id = self._settings, self.injector.prompt.end
        if end_id is None:
            ends: dict[str, Any] = {"stop": [CLOSE], "include_stop_str_in_output": True}
        else:
            # Quotes may hold every special token but this one. The text is made of the ids at once, as in
            # training: a detokenizer that streams drops half a character at the end.
            ends = {"stop_token_ids": [end_id], "ignore_eos": True, "detokenize": False}
        return self._vllm.SamplingParams(
            n=n,
            temperature=settings.temperature if n > 1 else 0.0,
            # Every request draws from its own seed, so that what it gets does not depend on its batch.
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
        """Free the engine's memory; the instance is of no use afterwards."""
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
    """Show vLLM a checkpoint without a pair's own files: it would load every safetensors as weights."""
    if not extra_files:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="subtext-av-") as folder:
        for path in checkpoint.iterdir():
            if path.name not in extra_files:
                (Path(folder) / path.name).symlink_to(path.resolve())
        yield Path(folder)


def _unwrapping(checkpoint: Path) -> dict[str, Any]:
    """Return the engine arguments for Gemma 3 inside its multimodal wrapper; none for anything else."""
    if not is_wrapped_gemma3(checkpoint):
        return {}
    import vllm

    from workers.nla.engine import gemma3

    unwrapped = gemma3.UnwrappedGemma3ForCausalLM
    vllm.ModelRegistry.register_model(unwrapped.__name__, f"{unwrapped.__module__}:{unwrapped.__name__}")
    return {"hf_overrides": gemma3.unwrap}


def mask(prompt: InjectedPrompt) -> Sequence[bool]:
    """Tell vLLM which positions are tokens (True) and which are the vector's (False)."""
    return [not 0 <= index - prompt.position < prompt.rows for index in range(len(prompt.ids))]
