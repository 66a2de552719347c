"""The activation verbalizer (AV) in training: vector to text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.adapters import prefixed_forward, with_adapters
from workers.training.config import Injection, Training
from workers.training.targets import WEIGHTS, Target


class Prompt(NamedTuple):
    """The fixed prompt, and where the vector enters it."""

    ids: list[int]
    position: int


class TokenLosses(NamedTuple):
    """One entry a target token of a batch, all targets one after another."""

    losses: Any
    hits: Any
    """Whether the likeliest token was the right one."""


def build_prompt(tokenizer: Any, injection: Injection) -> Prompt:
    """Tokenise the injection prompt; ValueError unless its character is exactly one token in it."""
    content = injection.template.format(injection_char=injection.character)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    own = tokenizer.encode(injection.character, add_special_tokens=False)
    places = [index for index, token in enumerate(ids) if [token] == own]
    if len(places) != 1:
        raise ValueError(
            f"injection.character: {injection.character!r} must be one token that occurs once in the prompt"
        )
    return Prompt(list(ids), places[0])


class Verbalizer:
    """The audited model with adapters; the vector replaces one token's embedding."""

    def __init__(self, model: str, tokenizer: Any, config: Training, injection: Injection) -> None:
        """Start at the model itself."""
        import torch
        import transformers

        self._torch = torch
        self._tokenizer = tokenizer
        self._scale = injection.scale
        self.prompt = build_prompt(tokenizer, injection)
        causal: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.peft = with_adapters(causal, config, task="CAUSAL_LM")
        self._causal = self.peft.get_base_model()

    def parameters(self) -> dict[str, Any]:
        """Return what is trained, by name."""
        return {name: value for name, value in self.peft.named_parameters() if value.requires_grad}

    def token_losses(self, targets: Sequence[Target], vectors: NDArray[np.float32]) -> TokenLosses:
        """Return the loss of every target token, given its vector and the tokens before it."""
        torch = self._torch
        prefix, tail = self._split_prompt()
        rest = [torch.tensor([*tail, *target.ids]) for target in targets]
        padded = torch.nn.utils.rnn.pad_sequence(rest, batch_first=True)
        embeddings = self._inject(self._causal.model.embed_tokens(padded), vectors)
        hidden = prefixed_forward(self._causal.model, torch.tensor(prefix), embeddings)
        # The vocabulary is the widest layer by far: logits only where a target token is predicted.
        wanted = torch.cat([torch.tensor(target.ids) for target in targets])
        states = torch.cat([hidden[row, len(tail) - 1 : len(own) - 1] for row, own in enumerate(rest)])
        logits = self._causal.lm_head(states)
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        return TokenLosses(losses, logits.detach().argmax(dim=-1) == wanted)

    def loss(self, targets: Sequence[Target], vectors: NDArray[np.float32]) -> Any:
        """Return the mean loss weighted by what each token says."""
        weights = self._torch.tensor([WEIGHTS[kind] for target in targets for kind in target.kinds])
        return (self.token_losses(targets, vectors).losses * weights).sum() / weights.sum()

    def write(self, vectors: NDArray[np.float32], *, max_new_tokens: int) -> list[str]:
        """Return the likeliest continuation for every vector (greedy), tags included."""
        torch = self._torch
        ids = torch.tensor([self.prompt.ids] * len(vectors))
        embeddings = self._causal.model.embed_tokens(ids)
        start = self.prompt.position
        embeddings = torch.cat([embeddings[:, :start], self._inject(embeddings[:, start:], vectors)], dim=1)
        with torch.inference_mode():
            output = self._causal.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=self._tokenizer.eos_token_id,
                eos_token_id=self._tokenizer.eos_token_id,
            )
        return list(self._tokenizer.batch_decode(output, skip_special_tokens=True))

    def _split_prompt(self) -> tuple[list[int], list[int]]:
        return self.prompt.ids[: self.prompt.position], self.prompt.ids[self.prompt.position :]

    def _inject(self, embeddings: Any, vectors: NDArray[np.float32]) -> Any:
        """Replace each row's first embedding by its vector at the configured norm."""
        rows = self._torch.from_numpy(np.ascontiguousarray(vectors))
        rows = rows / rows.norm(dim=-1, keepdim=True) * self._scale
        return self._torch.cat([rows[:, None], embeddings[:, 1:]], dim=1)
