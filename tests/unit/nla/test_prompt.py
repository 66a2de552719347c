from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.unit.nla import toy
from workers.nla.errors import PromptError
from workers.nla.meta import Role, parse_meta
from workers.nla.prompt import InjectionPrompt, ReconstructionPrompt


@pytest.fixture
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


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
