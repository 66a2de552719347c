import copy
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.support.nla import toy
from workers.nla.checkpoint.meta import Role, parse_meta
from workers.nla.engine.prompt import InjectionPrompt, ReconstructionPrompt
from workers.nla.errors import PromptError


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def tokenizer(loaded: Any) -> Any:
    """A test's own as far as its chat template, which some replace."""
    return copy.copy(loaded)


def changed(role: Role, change: Callable[[dict[str, Any]], object]) -> Any:
    content = toy.meta(role)
    change(content)
    return parse_meta(content, role)


def test_the_vector_takes_the_place_of_the_injection_token(tokenizer: Any) -> None:
    prompt = InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer).build(0, "")

    before = tokenizer.decode(prompt.ids[: prompt.position])
    after = tokenizer.decode(prompt.ids[prompt.position + 1 :])
    assert before.endswith("<concept>")
    assert after == "</concept><|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids[prompt.position] == 31854


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["tokens"].update(injection_token_id=5), r"injection_token_id: '§' is 5 .* \[31854\]"),
        (lambda m: m["tokens"].update(injection_char="㈎"), "injection_token_id: '㈎' is 31854"),
        (
            lambda m: m["tokens"].update(injection_left_neighbor_id=7),
            "left_neighbor_id: 7 .* 46 in the live",
        ),
        (lambda m: m["tokens"].update(injection_right_neighbor_id=7), "right_neighbor_id: 7 .* 9617 in"),
        (
            lambda m: m["prompt_templates"].update(av="It is (§) like <concept>{injection_char}</concept>"),
            "occurs 2 times",
        ),
    ],
)
def test_drift_of_the_injection_prompt_is_refused(
    tokenizer: Any, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        InjectionPrompt(changed("av", change), tokenizer)


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None

    with pytest.raises(PromptError, match="chat_template: missing"):
        InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer)


def test_a_chat_template_that_doubles_bos_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template

    with pytest.raises(PromptError, match="bos_token: the AV's prompt starts with two of them"):
        InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer)


DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '\n' }}"
OPTIONALLY_DATED = "{% if strftime_now is defined %}{{ strftime_now('%A') }}{% endif %}"


@pytest.mark.parametrize("dated", [DATED, OPTIONALLY_DATED])
def test_a_chat_template_that_prints_todays_date_is_refused(tokenizer: Any, dated: str) -> None:
    tokenizer.chat_template = dated + tokenizer.chat_template

    with pytest.raises(PromptError, match=r"prompt_templates\.date: missing.*date: 2026-03-01"):
        InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer)


def test_a_date_of_the_checkpoint_stands_in_for_today(tokenizer: Any) -> None:
    tokenizer.chat_template = DATED + tokenizer.chat_template
    meta = changed("av", lambda m: m["prompt_templates"].update(date=dt.date(2026, 3, 1)))

    ids = InjectionPrompt(meta, tokenizer).build(0, "").ids

    assert tokenizer.decode(ids).startswith("Today is 01 Mar 2026\n")


def test_the_reconstruction_prompt_ends_with_its_suffix(tokenizer: Any) -> None:
    prompt = ReconstructionPrompt(parse_meta(toy.meta("ar"), "ar"), tokenizer)

    ids = prompt.encode("a {brace} and 'quotes'", 0)

    assert tokenizer.decode(ids) == (
        "Summary of the following text: <text>a {brace} and 'quotes'</text> <summary>"
    )


def test_drift_of_the_reconstruction_prompt_is_refused(tokenizer: Any) -> None:
    meta = changed("ar", lambda m: m["prompt_templates"].update(ar="Summary: {explanation} now"))

    with pytest.raises(PromptError, match=r"tokens.critic_suffix_ids: "):
        ReconstructionPrompt(meta, tokenizer)


def test_a_reconstruction_prompt_without_bos_is_refused_where_no_chat_template_tells_why(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = None

    with pytest.raises(PromptError, match="bos_token: the AR's prompt must start with token 1"):
        ReconstructionPrompt(parse_meta(toy.meta("ar"), "ar"), tokenizer)


def test_a_reconstruction_prompt_without_the_bos_of_every_document_is_refused(tokenizer: Any) -> None:
    # As in Llama and Gemma: BOS opens the conversation, once, and not every turn.
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"

    with pytest.raises(PromptError, match="bos_token: the AR's prompt must start with token 1"):
        ReconstructionPrompt(parse_meta(toy.meta("ar"), "ar"), tokenizer)


SENTENCE = "An answer about law (contracts)."


def own_prompt(tokenizer: Any) -> InjectionPrompt:
    return InjectionPrompt(parse_meta(toy.own_meta("av"), "av"), tokenizer)


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_a_projectors_rows_the_read_tokens_id_and_the_labels_take_their_places(tokenizer: Any) -> None:
    prompt = own_prompt(tokenizer).build(777, SENTENCE)

    before = encode(tokenizer, "<|im_start|>user\nActivation: ")
    between = encode(tokenizer, " Token:")
    after = encode(tokenizer, f'<|im_end|>\n<|im_start|>assistant\n{SENTENCE} Expects "')
    assert list(prompt.ids) == [*before, *[31854] * toy.ROWS, *between, 777, *after]
    assert (prompt.position, prompt.rows) == (len(before), toy.ROWS)


def test_the_read_token_is_never_tokenized_again(tokenizer: Any) -> None:
    # The injection token itself may be read, and half a character, which no text says.
    for token_id in (31854, 0, 2, 155):
        ids = own_prompt(tokenizer).build(token_id, SENTENCE).ids

        assert ids[ids.index(33135) + 2] == token_id
        assert len(ids) == len(own_prompt(tokenizer).build(777, SENTENCE).ids)


def test_an_answer_is_read_up_to_its_end_with_its_special_tokens(tokenizer: Any) -> None:
    ids = encode(tokenizer, ' to". Reads "<|im_start|>it is<|im_end|>☃')

    assert own_prompt(tokenizer).decode([*ids, 0]) == ' to". Reads "<|im_start|>it is<|im_end|>☃'
    # A part of the snowman, as in training.
    assert own_prompt(tokenizer).decode(ids[:-1]).endswith("<|im_end|>�")


def test_the_end_of_an_answer_is_one_token(tokenizer: Any) -> None:
    assert own_prompt(tokenizer).end == 0
    assert InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer).end is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["prompt_templates"].update(end="the end"),
            r"prompt_templates.end: 'the end' is \[.* one",
        ),
        (
            lambda m: m["tokens"].update(injection_left_neighbor_id=7),
            "left_neighbor_id: 7 .* 216 in the live",
        ),
        (lambda m: m["tokens"].update(injection_right_neighbor_id=7), "right_neighbor_id: 7 .* 33135 in"),
        (
            lambda m: m["prompt_templates"].update(av=f"It is (§) {toy.OWN_AV_TEMPLATE}"),
            "token 31854 occurs 4 times in the prompt, must occur 3 times",
        ),
        (
            lambda m: m["prompt_templates"].update(av=f"<|im_start|>{toy.OWN_AV_TEMPLATE}"),
            "bos_token: the AV's prompt starts with two of them",
        ),
    ],
)
def test_drift_of_our_own_prompt_is_refused(
    tokenizer: Any, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = toy.own_meta("av")
    change(content)

    with pytest.raises(PromptError, match=message):
        InjectionPrompt(parse_meta(content, "av"), tokenizer)


def test_a_chat_turn_may_hold_rows_too(tokenizer: Any) -> None:
    content = toy.meta("av")
    content["projector"] = toy.own_meta("av")["projector"]

    prompt = InjectionPrompt(parse_meta(content, "av"), tokenizer).build(0, "")

    plain = InjectionPrompt(parse_meta(toy.meta("av"), "av"), tokenizer).build(0, "")
    assert list(prompt.ids) == [
        *plain.ids[: plain.position],
        *[31854] * toy.ROWS,
        *plain.ids[plain.position + 1 :],
    ]


def test_a_reconstruction_prompt_may_end_on_the_read_token(tokenizer: Any) -> None:
    prompt = ReconstructionPrompt(parse_meta(toy.own_meta("ar"), "ar"), tokenizer)

    ids = prompt.encode('Prose. Reads "it is<|im_end|>', 155)

    text = encode(tokenizer, '<|im_start|>assistant\nProse. Reads "it is<|im_end|>')
    assert ids == [*text, 155]
    assert prompt.takes_token
    assert not ReconstructionPrompt(parse_meta(toy.meta("ar"), "ar"), tokenizer).takes_token


def test_a_template_that_ends_on_the_token_says_its_own_bos(tokenizer: Any) -> None:
    # As in Llama and Gemma: the tokenizer's rule is for templates that leave the BOS to it.
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"

    assert ReconstructionPrompt(parse_meta(toy.own_meta("ar"), "ar"), tokenizer).encode("x", 5)[-1] == 5
