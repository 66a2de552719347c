"""What the verbalizer wrote is kept, and a killed run goes on as if nothing had happened."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from workers.nla.claims import EXPECTS, READS
from workers.training.data.material import Material
from workers.training.data.targets import ReadingWriter
from workers.training.fit.verbalizer import Verbalizer
from workers.training.measure import readings

ROWS = 150


class _Killed(BaseException):
    """Stands for the end of the process."""


class DrawingVerbalizer:
    """Writes tokens that depend on the vector and on the portion's random numbers."""

    def __init__(self, *, die_at: int | None = None) -> None:
        self.calls = 0
        self._die_at = die_at

    @contextmanager
    def merged(self) -> Iterator[None]:
        yield

    def write(self, prompts: Sequence[list[int]], centred: Any, **_: Any) -> list[list[int]]:
        if self.calls == self._die_at:
            raise _Killed
        self.calls += 1
        drawn = torch.randint(1000, (len(prompts),)).tolist()
        return [[int(row[0]), token] for row, token in zip(centred, drawn, strict=True)]


class SpellingWriter:
    """Spells tokens as numbers; token 0 ends an answer."""

    end = 0

    def prompt(self, token: int, sentence: str) -> list[int]:
        return [token, len(sentence)]

    def cut(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def material() -> Material:
    vectors = np.arange(ROWS, dtype=np.float32)[:, None]
    tokens = np.ones((ROWS, 3), np.int64)
    return Material(["A sentence."] * ROWS, tokens, tokens[:, 0], vectors, vectors)


def keep(path: Path, verbalizer: DrawingVerbalizer) -> list[readings.Candidates]:
    return readings.keep_readings(
        path,
        cast("Verbalizer", verbalizer),
        cast("ReadingWriter", SpellingWriter()),
        material(),
        candidates=2,
        temperature=1.0,
        seed=7,
        log=lambda _: None,
    )


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[readings.Candidates]:
    return keep(tmp_path / "whole.jsonl", DrawingVerbalizer())


def test_every_row_gets_its_candidates_in_order(undisturbed: list[readings.Candidates]) -> None:
    assert [[answer[0] for answer in one.answers] for one in undisturbed] == [
        [row, row] for row in range(ROWS)
    ]


@pytest.mark.parametrize("die_at", [0, 1, 2])
def test_readings_go_on_behind_what_a_killed_run_kept(
    die_at: int, tmp_path: Path, undisturbed: list[readings.Candidates]
) -> None:
    path = tmp_path / "readings.jsonl"

    with pytest.raises(_Killed):
        keep(path, DrawingVerbalizer(die_at=die_at))

    assert keep(path, DrawingVerbalizer()) == undisturbed


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_a_portion_that_was_cut_short_is_read_again(
    kept: float, tmp_path: Path, undisturbed: list[readings.Candidates]
) -> None:
    path = tmp_path / "whole.jsonl"
    content = path.read_text()
    path.write_text(content[: round(len(content) * kept)])

    assert keep(path, DrawingVerbalizer()) == undisturbed


def test_what_is_complete_is_not_read_again(tmp_path: Path, undisturbed: list[readings.Candidates]) -> None:
    verbalizer = DrawingVerbalizer(die_at=0)

    assert keep(tmp_path / "whole.jsonl", verbalizer) == undisturbed
    assert len((tmp_path / "whole.jsonl").read_text().splitlines()) == ROWS


class SayingVerbalizer:
    """Writes one given answer about everything."""

    def __init__(self, answer: list[int]) -> None:
        self._answer = answer

    def write(self, prompts: Sequence[list[int]], _: Any, **__: Any) -> list[list[int]]:
        return [self._answer for _ in prompts]


@pytest.mark.parametrize(("ending", "is_formed"), [(True, True), (False, False)])
def test_an_answer_keeps_the_format_when_it_also_ends(
    ending: bool,  # noqa: FBT001  # a column of a table
    is_formed: bool,  # noqa: FBT001
    toy_writer: ReadingWriter,
) -> None:
    said = toy_writer.encode(f"to{READS}why is it")
    answer = [*said, toy_writer.end, toy_writer.end] if ending else said

    found = readings.read(
        cast("Verbalizer", SayingVerbalizer(answer)),
        toy_writer,
        material().take(np.arange(2)),
        candidates=1,
        temperature=0.0,
    )

    assert found[1].answers == [said]
    assert found[1].texts == [f"A sentence.{EXPECTS}to{READS}why is it"]
    assert found[1].well_formed == [is_formed]


def test_what_lost_the_format_is_read_as_the_worker_reads_it(toy_writer: ReadingWriter) -> None:
    verbalizer = cast("Verbalizer", SayingVerbalizer(toy_writer.encode("just words")))

    found = readings.read(
        verbalizer, toy_writer, material().take(np.arange(1)), candidates=1, temperature=0.0
    )

    assert found[0].texts == [f"A sentence.{EXPECTS}just words"]
    assert found[0].well_formed == [False]


def test_every_candidate_becomes_a_prompt_of_its_vector(toy_writer: ReadingWriter) -> None:
    found = [readings.Candidates([[1], [2]], [f"{row} a", f"{row} b"], [True, True]) for row in range(2)]

    sequences = readings.sequences(toy_writer, found, np.array([7, 8]))

    texts = ("0 a", "0 b", "1 a", "1 b")
    assert sequences == [
        toy_writer.ar_ids(text, token) for text, token in zip(texts, (7, 7, 8, 8), strict=True)
    ]


def test_lines_are_what_a_later_version_can_read(
    tmp_path: Path, undisturbed: list[readings.Candidates]
) -> None:
    first = json.loads((tmp_path / "whole.jsonl").read_text().splitlines()[0])

    assert set(first) == {"answers", "texts", "well_formed"}
    assert readings.Candidates(**first) == undisturbed[0]
