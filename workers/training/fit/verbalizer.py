"""The activation verbalizer (AV) in training."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.engine.precision import halve_products, is_native
from workers.training.config import Training
from workers.training.data.targets import AvExample, ReadingWriter
from workers.training.fit import precision
from workers.training.fit.adapters import with_adapters

Centred = NDArray[np.float32]
"""Output of `Projector.centre`, (n, d_model)."""


class TokenLosses(NamedTuple):
    """One entry per answer token of a batch, (tokens,), all answers concatenated."""

    losses: Any
    """Cross entropy in nats."""
    hits: Any
    """Whether the likeliest token was the right one."""


class Verbalizer:
    """The audited model with adapters, and a projector that turns a vector into soft tokens."""

    def __init__(self, model: str, writer: ReadingWriter, config: Training, projector: Any) -> None:
        """Load the model with zero adapters; `projector` is a linear layer with rows * d outputs."""
        import torch
        import transformers

        self._torch = torch
        self._device = precision.device()
        self._writer = writer
        causal: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.width = causal.config.hidden_size
        self.peft = with_adapters(causal, config, task="CAUSAL_LM").to(self._device)
        self._causal = self._writing = self.peft.get_base_model()
        self._embed = causal.get_input_embeddings()
        self.projector = projector.to(self._device)

    def parameters(self) -> dict[str, Any]:
        """Return the trained parameters by name."""
        adapters = {name: value for name, value in self.peft.named_parameters() if value.requires_grad}
        return {
            **adapters,
            **{f"projector.{name}": value for name, value in self.projector.named_parameters()},
        }

    def token_losses(
        self, examples: Sequence[AvExample], centred: Centred, seen: Sequence[list[int]] | None = None
    ) -> TokenLosses:
        """Return the loss of every answer token, given the vector and the answer tokens before.

        `seen` are the answers as model input, if they differ from the target answers.
        """
        torch = self._torch
        before = len(self._writer.before)
        rows = self._soft_tokens(centred)
        offset = before + rows.shape[1]
        sequences = [
            torch.tensor([*example.prompt, *shown])
            for example, shown in zip(examples, seen or [one.answer for one in examples], strict=True)
        ]
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(self._device)
        with precision.autocast():
            hidden = self._causal.get_decoder()(
                inputs_embeds=torch.cat([self._start(len(examples)), rows, self._embed(padded)], dim=1),
                use_cache=False,
            ).last_hidden_state
            # The output layer is by far the widest, so compute logits only at answer tokens. One gather
            # replaces a slice per row, whose gradients would each be as large as `hidden`.
            starts = [
                row * hidden.shape[1] + offset + len(one.prompt) - 1 for row, one in enumerate(examples)
            ]
            places = torch.cat(
                [
                    torch.arange(start, start + len(one.answer))
                    for start, one in zip(starts, examples, strict=True)
                ]
            )
            states = hidden.flatten(0, 1).index_select(0, places.to(self._device))
            logits = self._causal.get_output_embeddings()(states).float()
        targets = torch.tensor([token for one in examples for token in one.answer]).to(self._device)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return TokenLosses(losses, logits.detach().argmax(dim=-1) == targets)

    def loss(self, examples: Sequence[AvExample], centred: Centred, seen: Sequence[list[int]]) -> Any:
        """Return the mean loss, weighted by the examples' token weights."""
        weights = self._torch.tensor([weight for one in examples for weight in one.weights]).to(
            self._device
        )
        return (self.token_losses(examples, centred, seen).losses * weights).sum() / weights.sum()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Let `write` use a copy with merged adapters, like the worker; faster for many texts.

        Training inside the context does not change the copy.
        """
        self._writing = copy.deepcopy(self.peft).merge_and_unload()
        if is_native(self._device):
            # Only the blocks are converted, because the output layer may share weights with the embeddings.
            halve_products(self._writing.get_decoder())
        try:
            yield
        finally:
            self._writing = self._causal

    def write(
        self, prompts: Sequence[list[int]], centred: Centred, *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        """Return the answer to every prompt as token ids; temperature 0 decodes greedily."""
        torch = self._torch
        longest = max(map(len, prompts))
        # Generation continues at the right end, so padding goes to the left.
        padding = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * pad + list(one) for pad, one in zip(padding, prompts, strict=True)])
        with torch.inference_mode(), precision.autocast():
            rows = self._soft_tokens(centred)
            head = torch.cat([self._start(len(prompts)), rows], dim=1)
            rest = self._embed(ids.to(self._device))
            embeddings = torch.cat([head, rest], dim=1)
            for row, pad in enumerate(padding):
                # The padding must precede the soft tokens, so that these stay next to the words.
                embeddings[row] = torch.cat([rest[row, :pad], head[row], rest[row, pad:]])
            mask = torch.arange(embeddings.shape[1])[None] >= torch.tensor(padding)[:, None]
            # Sample from the full vocabulary, as the worker does; the default of `generate` is the top 50
            # or the model's own setting.
            warmth: dict[str, Any] = (
                {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
                if temperature
                else {}
            )
            output = self._writing.generate(
                inputs_embeds=embeddings,
                attention_mask=mask.long().to(self._device),
                max_new_tokens=max_new_tokens,
                eos_token_id=self._writer.end,
                pad_token_id=self._writer.end,
                **({"do_sample": False} | warmth),
            )
        return [row.tolist() for row in output]

    def _soft_tokens(self, centred: Centred) -> Any:
        vectors = self._torch.from_numpy(np.ascontiguousarray(centred)).to(self._device)
        return self.projector(vectors).view(len(centred), -1, self.width).float()

    def _start(self, count: int) -> Any:
        ids = self._torch.tensor(self._writer.before, device=self._device)
        return self._embed(ids)[None].expand(count, -1, -1)
