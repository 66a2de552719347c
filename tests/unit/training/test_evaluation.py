"""What a reading is judged by."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.nla.verbalizer import Explanation
from workers.training import readings
from workers.training.evaluation import predict_token_means, quote_opening


def test_the_token_baseline_predicts_each_tokens_own_mean() -> None:
    train = np.array([[1, 0], [1, 0], [0, 1]], np.float32)

    predicted = predict_token_means(train, np.array([5, 5, 6]), np.array([5, 7]), prior=0.001)

    assert predicted[0] == pytest.approx([1, 0], abs=1e-2)
    assert predicted[1] == pytest.approx(train.mean(axis=0), abs=1e-3)


def test_only_the_part_that_names_the_read_token_is_compared() -> None:
    assert quote_opening('It has read "a" after "b" and') == quote_opening('It has read "a" after "c" and')
    assert quote_opening('It has read "a" after "b"') != quote_opening('It has read "b" after "b"')


def test_readings_go_on_behind_what_a_killed_run_kept(tmp_path: Path) -> None:
    vectors = np.arange(130, dtype=np.float32)[:, None]
    seen: list[int] = []

    def reader(rows: NDArray[np.float32]) -> list[Explanation]:
        if len(seen) == 1:
            seen.append(0)
            raise KeyboardInterrupt
        seen.append(len(rows))
        return [Explanation(str(int(row[0])), well_formed=True) for row in rows]

    path = tmp_path / "readings.jsonl"
    with pytest.raises(KeyboardInterrupt):
        readings.keep_readings(path, vectors, reader, log=lambda _: None)
    readings.keep_readings(path, vectors, reader, log=lambda _: None)

    assert [said.text for said in readings.load_readings(path)] == [str(index) for index in range(130)]
    assert sum(seen) == 130
