"""The activation verbalizer (AV) in training: vector to text."""

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
"""(n, d_model), as `Projector.centre` gives them."""


class TokenLosses(NamedTuple):
    """One entry an answer token of a batch, all answers one after another."""

    losses: Any
    hits: Any
    """Whether the likeliest token was the right one."""


class Verbalizer:
    """The audited model with adapters, behind a projector that turns a vector into soft tokens."""

    def __init__(self, model: str, writer: ReadingWriter, config: Training, projector: Any) -> None:
        """Start at the model itself and the given projector, a linear layer of (rows * d) outputs."""
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
        """Return what is trained, by name."""
        adapters = {name: value for name, value in self.peft.named_parameters() if value.requires_grad}
        return {
            **adapters,
            **{f"projector.{name}": value for name, value in self.projector.named_parameters()},
        }

    def token_losses(
        self, examples: Sequence[AvExample], centred: Centred, seen: Sequence[list[int]] | None = None
    ) -> TokenLosses:
        """Return the loss of every answer token, given its vector and the answer tokens before it.

        `seen` are the answers as the model sees them, where they differ from what it must say.
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
            # The vocabulary is the widest layer by far: logits only where an answer token is predicted.
            # One gather instead of a slice a row, whose gradients would each be as large as `hidden`.
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
        wanted = torch.tensor([token for one in examples for token in one.answer]).to(self._device)
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        return TokenLosses(losses, logits.detach().argmax(dim=-1) == wanted)

    def loss(self, examples: Sequence[AvExample], centred: Centred, seen: Sequence[list[int]]) -> Any:
        """Return the mean loss weighted by what each token says."""
        weights = self._torch.tensor([weight for one in examples for weight in one.weights]).to(
            self._device
        )
        return (self.token_losses(examples, centred, seen).losses * weights).sum() / weights.sum()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Let `write` use a copy with the adapters merged in, as the worker's engine reads; for many texts.

        What is trained meanwhile does not reach the copy.
        """
        self._writing = copy.deepcopy(self.peft).merge_and_unload()
        if is_native(self._device):
            # The blocks alone: the embeddings share their weights with the output layer.
            halve_products(self._writing.get_decoder())
        try:
            yield
        finally:
            self._writing = self._causal

    def write(
        self, prompts: Sequence[list[int]], centred: Centred, *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        """Return the answer to every prompt as token ids; the likeliest one at temperature 0."""
        torch = self._torch
        longest = max(map(len, prompts))
        # Padded on the left: generation goes on at the right end.
        padding = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * pad + list(one) for pad, one in zip(padding, prompts, strict=True)])
        with torch.inference_mode(), precision.autocast():
            rows = self._soft_tokens(centred)
            head = torch.cat([self._start(len(prompts)), rows], dim=1)
            rest = self._embed(ids.to(self._device))
            embeddings = torch.cat([head, rest], dim=1)
            for row, pad in enumerate(padding):
                # Vector and words stay neighbours: the padding moves in front of both.
                embeddings[row] = torch.cat([rest[row, :pad], head[row], rest[row, pad:]])
            mask = torch.arange(embeddings.shape[1])[None] >= torch.tensor(padding)[:, None]
            # All tokens, as the worker's engine samples: this library takes the likeliest 50, or what the
            # model's own settings say.
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
