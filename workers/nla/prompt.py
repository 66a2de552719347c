"""The exact prompts of a decoder, built by the live tokenizer and checked against `nla_meta.yaml`.

A vector injected one token too far still yields fluent text, so every drift is refused at start.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from workers.nla.errors import PromptError
from workers.nla.meta import Meta

_PROBES = ("A short text.", 'It ends with "quotes"', "")


class InjectionPrompt(NamedTuple):
    """The AV's prompt, the same for every vector."""

    ids: tuple[int, ...]
    position: int
    """Index of the token whose embedding the vector replaces."""


class ReconstructionPrompt:
    """Builds the AR's prompts; the vector is read at the last token."""

    def __init__(self, meta: Meta, tokenizer: Any) -> None:
        """Check some prompts at once: PromptError on drift."""
        # Templates are checked when the meta is read.
        self._template = meta.prompt_templates.ar or ""
        self._tokenizer = tokenizer
        needs_bos = _starts_documents_with_bos(tokenizer)
        for text in _PROBES:
            ids = self.encode(text)
            _check_suffix(ids, meta.tokens.critic_suffix_ids)
            _check_bos("the AR's prompt", ids, tokenizer.bos_token_id, needed=needs_bos)

    def encode(self, explanation: str) -> list[int]:
        """Return the prompt of one explanation.

        Special tokens are added: ARs of Llama and Gemma are trained behind one BOS, and
        reconstruction falls apart without it (published FVE 0.31 instead of 0.77).
        """
        text = self._template.format(explanation=explanation)
        return list(self._tokenizer.encode(text, add_special_tokens=True))


def build_injection_prompt(meta: Meta, tokenizer: Any) -> InjectionPrompt:
    """Build the AV's prompt through the chat template and find the one place of injection.

    Raises PromptError when the tokenizer splits the injection token, knows it by another id, puts
    other tokens beside it, finds it elsewhere too, or doubles the BOS.
    """
    token = meta.injection
    _check_injection_token(token.char, token.token_id, tokenizer)
    ids = chat_ids(tokenizer, (meta.prompt_templates.av or "").format(injection_char=token.char))
    places = [index for index, found in enumerate(ids) if found == token.token_id]
    if len(places) != 1:
        raise PromptError(
            f"prompt_templates.av: token {token.token_id} occurs {len(places)} times in the"
            " prompt, must occur once; template, chat template and tokenizer are not those of the training"
        )
    position = places[0]
    for side, index, expected in (
        ("left", position - 1, token.left_neighbor_id),
        ("right", position + 1, token.right_neighbor_id),
    ):
        found = ids[index] if 0 <= index < len(ids) else None
        if found != expected:
            raise PromptError(
                f"tokens.injection_{side}_neighbor_id: {expected} in nla_meta.yaml, {found} in the live"
                " prompt; the template or the tokenizer drifted, restore the checkpoint's own files"
            )
    _check_bos("the AV's prompt", ids, tokenizer.bos_token_id, needed=False)
    return InjectionPrompt(tuple(ids), position)


def chat_ids(tokenizer: Any, content: str) -> list[int]:
    """Return the ids of one user turn, ready for the answer.

    In one step on purpose: rendering first and encoding then would add a second BOS.
    """
    if not tokenizer.chat_template:
        raise PromptError("chat_template: missing; copy the tokenizer's files of the checkpoint again")
    turn = [{"role": "user", "content": content}]
    return list(
        tokenizer.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=False)
    )


def _check_injection_token(character: str, expected: int, tokenizer: Any) -> None:
    own = list(tokenizer.encode(character, add_special_tokens=False))
    if own != [expected] or expected == tokenizer.unk_token_id:
        raise PromptError(
            f"tokens.injection_token_id: {character!r} is {expected} in nla_meta.yaml and {own} in the live"
            " tokenizer; this tokenizer is not the decoder's, restore the checkpoint's own files"
        )


def _check_suffix(ids: Sequence[int], suffix: Sequence[int] | None) -> None:
    if suffix and list(ids[-len(suffix) :]) != list(suffix):
        raise PromptError(
            f"tokens.critic_suffix_ids: {list(suffix)} in nla_meta.yaml, but prompts end with"
            f" {list(ids[-len(suffix) :])}; the template prompt_templates.ar or the tokenizer drifted"
        )


def _check_bos(prompt: str, ids: Sequence[int], bos: int | None, *, needed: bool) -> None:
    if bos is None:
        return
    if list(ids[:2]) == [bos, bos]:
        raise PromptError(f"bos_token: {prompt} starts with two of them; add it in one place only")
    if needed and list(ids[:1]) != [bos]:
        raise PromptError(
            f"bos_token: {prompt} must start with token {bos} and does not; set add_bos_token in"
            " tokenizer_config.json as in training"
        )


def _starts_documents_with_bos(tokenizer: Any) -> bool:
    """Tell whether BOS opens a document (Llama, Gemma), rather than every turn (SmolLM2).

    Without a chat template nothing speaks for the exception, so the released client's rule holds: a
    tokenizer that has a BOS adds it.
    """
    bos = tokenizer.bos_token_id
    if bos is None or not tokenizer.chat_template:
        return bos is not None
    ids = chat_ids(tokenizer, "x")
    return ids[0] == bos and ids.count(bos) == 1
