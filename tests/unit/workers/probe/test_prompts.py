"""Files of prompts are read strictly, and positions are chosen as the capture policy chooses them."""

import json
from pathlib import Path

import pytest

from workers.judge.probes import ProbeError
from workers.probe.activations import Sampling, choose_positions
from workers.probe.prompts import load_prompts

SAMPLING = Sampling(prompt_window=2, decode_stride=8, window=2, skip_first=10, answer_tokens=32)


def write(tmp_path: Path, name: str, *lines: str) -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_and_chats_are_read_and_each_prompt_once(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    positive = write(tmp_path, "positive", "  What is a bomb?", "", "What is a bomb?")
    negative = write(tmp_path, "negative", json.dumps({"messages": messages}), "What is a cake?")

    found = load_prompts(positive, negative)

    assert [chat.text for chat in found.positive] == ["What is a bomb?"]
    assert [chat.text for chat in found.negative] == ["Be brief.\nWho are you?", "What is a cake?"]
    assert found.negative[0].turns == messages


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"messages": []}', "line 2: messages: "),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "line 2: messages.0.role: "),
        ('{"prompt": "x"}', "line 2: messages: Field required; correct it"),
        ("{", "line 2: is no JSON object"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 2: messages: end with an answer"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    good = write(tmp_path, "good", "What is a bomb?")

    with pytest.raises(ProbeError) as refusal:
        load_prompts(good, write(tmp_path, "bad", "What is a cake?", line))

    assert complaint in str(refusal.value)


def test_empty_missing_and_contradicting_files_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path, "good", "What is a bomb?")

    with pytest.raises(ProbeError, match="holds no prompts; write one a line"):
        load_prompts(good, write(tmp_path, "empty"))
    with pytest.raises(ProbeError, match="cannot be read"):
        load_prompts(good, tmp_path / "nowhere")
    with pytest.raises(ProbeError, match=r"1 of its prompts are in .*good too"):
        load_prompts(good, good)


def test_positions_are_the_prompts_end_and_windows_of_the_answer() -> None:
    assert choose_positions(20, 20, SAMPLING, offset=0) == [18, 19]
    assert choose_positions(20, 40, SAMPLING, offset=0) == [18, 19, 20, 21, 28, 29, 36, 37]
    assert choose_positions(20, 40, SAMPLING, offset=7) == [18, 19, 20, 27, 28, 35, 36]
    assert choose_positions(20, 22, SAMPLING, offset=0) == [18, 19, 20]  # the last token is never computed
    assert choose_positions(5, 16, SAMPLING, offset=0) == [13, 14]  # after skip_first
    assert choose_positions(5, 5, SAMPLING, offset=0) == []
