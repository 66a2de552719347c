"""A canary's prompt as the model reads it, by the tokenizer of the audited model."""

from pathlib import Path

import pytest

from workers.canary.tokenizer import ChatTokenizer, TokenizerError


def test_a_prompt_is_a_chat_whose_answer_begins(model_dir: Path) -> None:
    import transformers

    ids = ChatTokenizer(model_dir)("about bread")

    text = transformers.AutoTokenizer.from_pretrained(model_dir).decode(ids)
    assert text.endswith("<|im_start|>user\nabout bread<|im_end|>\n<|im_start|>assistant\n")


def test_a_folder_without_a_tokenizer_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=f"SUBTEXT_CANARY_TOKENIZER_DIR: {tmp_path} holds no tokenizer"
    ):
        ChatTokenizer(tmp_path)


def test_a_tokenizer_without_a_chat_template_is_refused(model_dir: Path, tmp_path: Path) -> None:
    for file in model_dir.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"chat_template"', '"unused"'))

    with pytest.raises(TokenizerError, match="holds no chat template"):
        ChatTokenizer(tmp_path)
