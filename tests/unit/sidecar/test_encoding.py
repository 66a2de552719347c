import pytest
import torch

from subtext_sidecar.plugin.encoding import Identity, encode, end_token_ids
from subtext_sidecar.plugin.handover import Batch, Row
from subtext_sidecar.plugin.staging import Staged, stage
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.record import decode

IDENTITY = Identity("m", 20, frozenset({2}))


def row(position: int, *, is_prefill: bool = False) -> Row:
    return Row("request", position, is_prefill, 0.25, "decode")


def batch(rows: list[Row], token_ids: list[int], positions: list[int], dtype: torch.dtype) -> Batch:
    vectors = torch.arange(len(rows) * 4).reshape(len(rows), 4).to(dtype)
    staged = Staged(vectors, torch.tensor(token_ids), torch.tensor(positions), None)
    return Batch(rows, staged, 1_800_000_000.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_becomes_a_valid_record_with_its_own_values(dtype: torch.dtype) -> None:
    encoded = encode(batch([row(3), row(4)], [7, 8], [3, 4], dtype), IDENTITY)

    records = [decode(header, vector) for header, vector in encoded.records]

    assert [record.values().tolist() for record in records] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [(record.header.position, record.header.token_id) for record in records] == [(3, 7), (4, 8)]
    assert records[0].header.norm == pytest.approx(14**0.5)


def test_a_row_that_ran_at_another_position_is_dropped() -> None:
    encoded = encode(batch([row(3), row(4)], [7, 8], [3, 5], torch.float32), IDENTITY)

    assert len(encoded.records) == 1
    assert encoded.dropped == {"position_mismatch": 1}


def test_the_pass_after_the_end_token_is_dropped_but_end_tokens_of_the_prompt_are_kept() -> None:
    encoded = encode(batch([row(3, is_prefill=True), row(4)], [2, 2], [3, 4], torch.float32), IDENTITY)

    assert [decode(*frames).header.position for frames in encoded.records] == [3]
    assert encoded.dropped == {"after_end": 1}


def test_staging_gathers_exactly_the_picked_rows_and_keeps_none_of_the_runners_memory() -> None:
    residual = torch.arange(20.0).reshape(5, 4)
    step = Step(["a"], [0, 5], [0], residual, torch.arange(5, dtype=torch.int32), torch.arange(5))

    staged = stage(step, [1, 3])
    residual.zero_()

    assert staged.vectors.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    assert (staged.token_ids.tolist(), staged.positions.tolist()) == ([1, 3], [1, 3])


def test_end_tokens_may_be_one_several_or_none() -> None:
    assert end_token_ids(2, [2, 0], None) == {0, 2}
