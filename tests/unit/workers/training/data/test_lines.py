from collections.abc import Iterable
from pathlib import Path

import pytest

from workers.training.data import lines


class KilledError(Exception):
    pass


def test_a_file_that_was_killed_goes_on_from_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"

    def until_killed(written: list[int]) -> Iterable[int]:
        if len(written) >= 4:
            raise KilledError
        return [len(written), len(written) + 1]

    with pytest.raises(KilledError):
        lines.grow_lines(path, until_killed)
    with lines.unfinished(path).open("a") as file:
        file.write('{"cut')
    lines.grow_lines(path, lambda written: [len(written)] if len(written) < 6 else None)

    assert lines.read_lines(path) == [0, 1, 2, 3, 4, 5]
    assert not lines.unfinished(path).exists()


def test_a_finished_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n")

    lines.grow_lines(path, lambda _: [2])

    assert lines.read_lines(path) == [1]
