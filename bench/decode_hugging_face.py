"""Run Hugging Face `generate` on the AV's prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.nla.engine.verbalizer import CLOSE


class HuggingFace:
    """A second copy of the AV in transformers, in the same precision."""

    def __init__(
        self, checkpoint: Path, *, tokenizer: Any, dtype: Any, device: str, end: int | None, new_tokens: int
    ) -> None:
        """Load the model; answers end with the token `end`, or with the closing tag if `end` is None."""
        import torch
        import transformers

        self._torch = torch
        self._device = device
        self._dtype = dtype
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=dtype, local_files_only=True
        )
        self._model = loaded.eval().to(device)
        self._pad = int(tokenizer.eos_token_id) if end is None else end
        ends = {"stop_strings": [CLOSE], "tokenizer": tokenizer} if end is None else {}
        self._options = {
            "do_sample": False,
            "max_new_tokens": new_tokens,
            "eos_token_id": self._pad,
            "pad_token_id": self._pad,
            **ends,
        }

    def generate(self, prompts: Sequence[dict[str, Any]], *, batch: int) -> list[list[int]]:
        """Return the greedy answer to every prompt, in order; batches have similar lengths."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]["prompt_token_ids"]))
        answers: list[list[int]] = [[]] * len(prompts)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            for row, ids in zip(rows, self._generate([prompts[row] for row in rows]), strict=True):
                answers[row] = cut(ids, self._pad)
        return answers

    def _generate(self, prompts: Sequence[dict[str, Any]]) -> list[list[int]]:
        torch = self._torch
        longest = max(len(prompt["prompt_token_ids"]) for prompt in prompts)
        width = self._model.get_input_embeddings().weight.shape[1]
        embeddings = torch.zeros((len(prompts), longest, width), dtype=self._dtype, device=self._device)
        attended = torch.zeros((len(prompts), longest), dtype=torch.long, device=self._device)
        with torch.inference_mode():
            for row, prompt in enumerate(prompts):
                ids = torch.tensor(prompt["prompt_token_ids"], device=self._device)
                is_token = torch.tensor(prompt["prompt_is_token_ids"], device=self._device)[:, None]
                given = prompt["prompt_embeds"].to(self._device)
                # Prompts are aligned at the right end, where generation continues.
                place = slice(longest - len(ids), longest)
                embeddings[row, place] = torch.where(
                    is_token, self._model.get_input_embeddings()(ids), given
                )
                attended[row, place] = 1
            written = self._model.generate(
                inputs_embeds=embeddings, attention_mask=attended, **self._options
            )
        answers: list[list[int]] = written.cpu().tolist()
        return answers


def cut(ids: Sequence[int], end: int) -> list[int]:
    """Return an answer up to its end token, without padding."""
    ids = list(ids)
    return ids[: ids.index(end) + 1] if end in ids else ids
