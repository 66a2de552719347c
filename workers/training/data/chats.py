"""Generate the audited model's answers to prompts."""

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

TokenIds = Sequence[int]


class Writer(Protocol):
    """A loaded model that generates text."""

    def write(
        self, starts: Sequence[TokenIds], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[list[int]]:
        """Return every start's continuation as token ids, in order, the end token included.

        The result depends only on the arguments, not on earlier calls.
        """


def load_writer(engine: Literal["vllm", "transformers"], model: str) -> Writer:
    """Load the model in float32 with one of the two engines."""
    return VllmWriter(model) if engine == "vllm" else TransformersWriter(model)


def turn_end(tokenizer: Any) -> list[int]:
    """Return the tokens between the user's words and the answer.

    Raises ValueError when the chat template changes the user's words.
    """
    mark = "\u241f"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    _, separator, after = text.partition(mark)
    if not separator:
        raise ValueError("the tokenizer's chat template does not show the user's words")
    return list(tokenizer.encode(after, add_special_tokens=False))


class VllmWriter:
    """vLLM inside this process, so that deleting the writer frees the engine's memory for training."""

    def __init__(self, model: str) -> None:
        """Start the engine."""
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for reports
        from vllm import LLM

        self._engine = LLM(model=model, dtype="float32", enforce_eager=True, max_model_len=1024)

    def write(
        self, starts: Sequence[TokenIds], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[list[int]]:
        """Return the continuations; see Writer."""
        import torch
        from vllm import SamplingParams, TokensPrompt

        # Seeds the whole process, because vLLM's CPU sampler does not support a seed per request.
        torch.manual_seed(seed)
        sampling = SamplingParams(temperature=temperature, max_tokens=max_new_tokens, detokenize=False)
        prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids in starts]
        results = self._engine.generate(prompts, sampling, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]


class TransformersWriter:
    """Hugging Face `generate`, one start at a time, for models too small to need an engine."""

    def __init__(self, model: str) -> None:
        """Load the model."""
        import torch
        import transformers

        self._torch = torch
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def write(
        self, starts: Sequence[TokenIds], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[list[int]]:
        """Return the continuations; see Writer."""
        self._torch.manual_seed(seed)
        # Sample from the full vocabulary, as vLLM does.
        warmth: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        )
        written = []
        for ids in starts:
            output = self._model.generate(
                self._torch.tensor([list(ids)]),
                max_new_tokens=max_new_tokens,
                **({"do_sample": False} | warmth),
            )
            written.append(output[0, len(ids) :].tolist())
        return written
