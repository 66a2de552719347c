"""A reference implementation of the official documents, independent of workers.nla.

Tests compare both. Sources, of facts only: docs/inference.md, docs/design.md and nla_inference.py of
github.com/kitft/natural_language_autoencoders at 047eb8e.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

_SCALED = re.compile(r"gemma\d?(_text)?")


def prompt_ids(tokenizer: Any, template: str, char: str) -> list[int]:
    """Return the AV's prompt, rendered and encoded in one step by the chat template."""
    turn = [{"role": "user", "content": template.format(injection_char=char)}]
    rendered = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)
    return list(rendered["input_ids"])


def suffix_ids(tokenizer: Any, template: str) -> list[int]:
    """Return the tokens after the explanation, without the first, which may merge with the explanation."""
    return list(tokenizer.encode(template.split("{explanation}")[1], add_special_tokens=False))[1:]


def target_norm(scale: float | str | None, d_model: int) -> float | None:
    if scale in {None, "raw", "none"}:
        return None
    return math.sqrt(d_model) if scale == "sqrt_d_model" else float(scale)


def embed(checkpoint: Path, ids: list[int], model_type: str) -> torch.Tensor:
    """Return the embeddings of ids from the raw table, with the family's scale, (T, d)."""
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        (name,) = [name for name in file.keys() if name.endswith("embed_tokens.weight")]  # noqa: SIM118 - no dict
        rows: torch.Tensor = file.get_tensor(name)[torch.tensor(ids)].float()
    return rows * math.sqrt(rows.shape[1]) if _SCALED.fullmatch(model_type) else rows


def injected_embeddings(
    checkpoint: Path, meta: dict[str, Any], tokenizer: Any, vector: np.ndarray, *, model_type: str
) -> torch.Tensor:
    """Return the prompt's embeddings with the rescaled vector between its neighbours, (T, d)."""
    tokens = meta["tokens"]
    ids = prompt_ids(tokenizer, meta["prompt_templates"]["actor"], tokens["injection_char"])
    rows = embed(checkpoint, ids, model_type)
    norm = target_norm(meta["extraction"]["injection_scale"], meta["d_model"])
    row = torch.from_numpy(vector).float()
    placed = 0
    for place, token in enumerate(ids):
        sides = (ids[place - 1 : place], ids[place + 1 : place + 2])
        expected = ([tokens["injection_left_neighbor_id"]], [tokens["injection_right_neighbor_id"]])
        if token == tokens["injection_token_id"] and sides == expected:
            rows[place] = row if norm is None else row / row.norm() * norm
            placed += 1
    assert placed == 1
    return rows


def verbalize(
    checkpoint: Path, prompts: list[torch.Tensor], tokenizer: Any, *, model_type: str, new_tokens: int
) -> list[str]:
    """Return the greedy continuations of embedded prompts."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    texts = []
    for rows in prompts:
        written: list[int] = []
        while len(written) < new_tokens and tokenizer.eos_token_id not in written:
            answered = embed(checkpoint, written, model_type) if written else rows[:0]
            with torch.inference_mode():
                logits = model(inputs_embeds=torch.cat([rows, answered])[None], use_cache=False).logits
            written.append(int(logits[0, -1].argmax()))
        texts.append(str(tokenizer.decode(written, skip_special_tokens=True)))
    return texts


def reconstruct(base: Path, head: Path, tokenizer: Any, prompts: list[str], *, layer: int) -> np.ndarray:
    """Return the head times block K's output at the last token of each prompt, (n, d).

    The block's output comes from the whole base model.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    weight = load_file(head)["weight"].float()
    rebuilt = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=True, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        # hidden_states[0] holds the embeddings, so block K's output is entry K + 1.
        rebuilt.append(weight @ states[layer + 1][0, -1])
    return np.asarray(torch.stack(rebuilt))


def score(rebuilt: np.ndarray, vector: np.ndarray, mse_scale: float) -> tuple[float, float]:
    """Return MSE and cosine, where the MSE averages over d after scaling both sides to norm `mse_scale`."""
    left, right = (np.asarray(side, np.float64) for side in (rebuilt, vector))
    left, right = (side / np.linalg.norm(side) * mse_scale for side in (left, right))
    cosine = left @ right / (np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.mean((left - right) ** 2)), float(cosine)


def variance(vectors: np.ndarray, mse_scale: float) -> float:
    """Return the vectors' mean squared distance from their mean at norm `mse_scale`, averaged over d."""
    rows = np.asarray(vectors, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * mse_scale
    return float(np.mean((rows - rows.mean(axis=0)) ** 2))
