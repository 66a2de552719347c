"""Let the model answer the prompts: the traffic that the pair learns to read."""

import os
from collections.abc import Sequence
from typing import Any

from workers.training.config import Chats


def answer(
    prompts: Sequence[Sequence[int]], config: Chats, *, engine: str, model: str, seed: int
) -> list[list[int]]:
    """Return each prompt's answer as token ids, in order.

    `prompts` are token ids that end with the assistant's header.
    """
    if engine == "transformers":
        return _with_transformers(prompts, config, model=model, seed=seed)
    return _with_vllm(prompts, config, model=model, seed=seed)


def _with_vllm(
    prompts: Sequence[Sequence[int]], config: Chats, *, model: str, seed: int
) -> list[list[int]]:
    # One process: the engine's memory must be gone before training starts.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams, TokensPrompt

    engine = LLM(model=model, dtype="float32", enforce_eager=True, max_model_len=1024, seed=seed)
    # No seed per request: the CPU's generator refuses it; the engine's own seed stands.
    sampling = SamplingParams(
        temperature=config.temperature, max_tokens=config.max_new_tokens, detokenize=False
    )
    results = engine.generate([TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts], sampling)
    return [list(result.outputs[0].token_ids) for result in results]


def _with_transformers(
    prompts: Sequence[Sequence[int]], config: Chats, *, model: str, seed: int
) -> list[list[int]]:
    import torch
    import transformers

    torch.manual_seed(seed)
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    warmth = (
        {"do_sample": True, "temperature": config.temperature}
        if config.temperature
        else {"do_sample": False}
    )
    answers = []
    for ids in prompts:
        output = loaded.generate(torch.tensor([list(ids)]), max_new_tokens=config.max_new_tokens, **warmth)
        answers.append(output[0, len(ids) :].tolist())
    return answers
