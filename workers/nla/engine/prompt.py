"""Build a decoder's prompts with the live tokenizer and check them against `nla_meta.yaml`.

A vector injected at the wrong position still yields fluent text, so any drift is refused at start.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from workers.nla.checkpoint.meta import INJECTION, LABELS, TOKEN, Injection, Meta, split_template
from workers.nla.errors import PromptError

# Two that differ in all that a date is written with: year, month, day, weekday, and length of the words.
_DAYS = (dt.date(2001, 2, 3), dt.date(2022, 9, 30))
_PROBES = ("A short text.", 'It ends with "quotes"', "")


class InjectedPrompt(NamedTuple):
    """The AV's prompt for one vector."""

    ids: tuple[int, ...]
    position: int
    """Index of the first token whose embedding is replaced."""
    rows: int = 1
    """Number of consecutive tokens whose embeddings are replaced."""


class InjectionPrompt:
    """Builds the AV's prompts from the template, the read token and the labels' sentence."""

    def __init__(self, meta: Meta, tokenizer: Any) -> None:
        """Check one example prompt.

        Raises PromptError when the injection token is not a single token, or has another id, another
        neighbour or further occurrences; when BOS is doubled; when `end` is not a single token; and when
        the template prints today's date and the checkpoint names no date to print instead.
        """
        token, templates = meta.injection, meta.prompt_templates
        _check_injection_token(token.char, token.token_id, tokenizer)
        # `load_meta` has validated the template.
        self._pieces = split_template("av", templates.av)
        self._tokenizer = tokenizer
        self._injection = token
        self._rows = meta.projector.rows if meta.projector else 1
        self._chat = templates.chat
        self._date = templates.date
        if self._chat and self._date is None:
            _check_date(tokenizer)
        self.takes_token = TOKEN in self._pieces
        self.end = None if templates.end is None else _find_end(templates.end, tokenizer)
        # Any read token serves here except the injection token, which must occur only once.
        _check_injection(self.build(token.left_neighbor_id, ""), token)
        _check_bos("the AV's prompt", self.build(0, "").ids, tokenizer.bos_token_id, needed=False)

    def build(self, token_id: int, sentence: str) -> InjectedPrompt:
        """Return the prompt for a vector read at `token_id`, with the labels' `sentence`."""
        if self._chat:
            return self._build_turn()
        ids: list[int] = []
        position, text = 0, ""
        for piece in self._pieces:
            if piece == TOKEN:
                ids += [*self._encode(text), token_id]
                text = ""
            elif piece == INJECTION:
                ids += self._encode(text)
                position, text = len(ids), ""
                ids += [self._injection.token_id] * self._rows
            else:
                text += sentence if piece == LABELS else piece.value
        return InjectedPrompt((*ids, *self._encode(text)), position, self._rows)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def decode(self, answer: Sequence[int]) -> str:
        """Return the text of an answer without its end token; other special tokens stay visible."""
        ids = [token_id for token_id in answer if token_id != self.end]
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _build_turn(self) -> InjectedPrompt:
        char, token_id = self._injection.char, self._injection.token_id
        content = "".join(char if piece.is_place else piece.value for piece in self._pieces)
        ids = chat_ids(self._tokenizer, content, self._date or _DAYS[0])
        places = [index for index, other in enumerate(ids) if other == token_id]
        if len(places) != 1:
            raise _occurs(token_id, len(places), once=1)
        position = places[0]
        copies = [token_id] * self._rows
        return InjectedPrompt((*ids[:position], *copies, *ids[position + 1 :]), position, self._rows)


def _find_end(end: str, tokenizer: Any) -> int:
    ids = list(tokenizer.encode(end, add_special_tokens=False))
    # Comparing with unk_token_id would fail for SmolLM2, where `end` and unk are the same token.
    if len(ids) != 1 or tokenizer.decode(ids) != end:
        raise PromptError(
            f"prompt_templates.end: {end!r} is {ids} in the live tokenizer, must be one token; name the"
            " token that ended the answers of the training"
        )
    return int(ids[0])


def _check_injection(prompt: InjectedPrompt, token: Injection) -> None:
    ids, position, rows = prompt
    count = ids.count(token.token_id)
    if count != rows:
        raise _occurs(token.token_id, count, once=rows)
    for side, index, expected in (
        ("left", position - 1, token.left_neighbor_id),
        ("right", position + rows, token.right_neighbor_id),
    ):
        actual = ids[index] if 0 <= index < len(ids) else None
        if actual != expected:
            raise PromptError(
                f"tokens.injection_{side}_neighbor_id: {expected} in nla_meta.yaml, {actual} in the live"
                " prompt; the template or the tokenizer drifted, restore the checkpoint's own files"
            )


def _occurs(token_id: int, count: int, *, once: int) -> PromptError:
    times = "once" if once == 1 else f"{once} times"
    return PromptError(
        f"prompt_templates.av: token {token_id} occurs {count} times in the"
        f" prompt, must occur {times}; template, chat template and tokenizer are not those of the training"
    )


class ReconstructionPrompt:
    """Builds the AR's prompts; the vector is read at the last token."""

    def __init__(self, meta: Meta, tokenizer: Any) -> None:
        """Check some example prompts; raises PromptError on drift."""
        # `load_meta` has validated the template.
        self._pieces = split_template("ar", meta.prompt_templates.ar)
        self._tokenizer = tokenizer
        self.takes_token = TOKEN in self._pieces
        # A template with {token} spells out the whole prompt, including any BOS.
        needs_bos = not self.takes_token and _starts_documents_with_bos(tokenizer)
        for text in _PROBES:
            ids = self.encode(text, 0)
            _check_suffix(ids, meta.tokens.critic_suffix_ids)
            _check_bos("the AR's prompt", ids, tokenizer.bos_token_id, needed=needs_bos)

    def encode(self, explanation: str, token_id: int) -> list[int]:
        """Return the prompt for one explanation of a vector read at `token_id`.

        A template with {token} ends with the read token. For other templates the tokenizer adds special
        tokens: the ARs of Llama and Gemma are trained with one BOS, and lose most of their fidelity without
        it (published FVE 0.31 instead of 0.77).
        """
        text = "".join(
            explanation if piece.is_place else piece.value for piece in self._pieces if piece != TOKEN
        )
        ids = list(self._tokenizer.encode(text, add_special_tokens=not self.takes_token))
        return [*ids, token_id] if self.takes_token else ids


def chat_ids(tokenizer: Any, content: str, day: dt.date) -> list[int]:
    """Return the ids of one user turn with the generation prompt, as rendered on that day.

    Raises PromptError without a chat template.

    Rendering to text and encoding that text would add a second BOS.
    """
    noon = dt.datetime.combine(day, dt.time(12))  # a template may print the hour as well
    if not tokenizer.chat_template:
        raise PromptError("chat_template: missing; copy the tokenizer's files of the checkpoint again")
    turn = [{"role": "user", "content": content}]
    return list(
        tokenizer.apply_chat_template(
            turn,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
            strftime_now=noon.strftime,  # in place of the clock, the only one that a template can read
        )
    )


def _check_date(tokenizer: Any) -> None:
    first, second = (chat_ids(tokenizer, "x", day) for day in _DAYS)
    if first != second:
        raise PromptError(
            "prompt_templates.date: missing, and the chat template prints today's date, so the AV would be"
            " asked something else than in its calibration from tomorrow on; name the day that it is to"
            " print, the training's if it is known, as in date: 2026-03-01, and calibrate"
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
    """Return whether BOS starts a document (Llama, Gemma) rather than every turn (SmolLM2).

    Without a chat template the released client's rule applies: a tokenizer with a BOS adds it.
    """
    bos = tokenizer.bos_token_id
    if bos is None or not tokenizer.chat_template:
        return bos is not None
    ids = chat_ids(tokenizer, "x", _DAYS[0])
    return ids[0] == bos and ids.count(bos) == 1
