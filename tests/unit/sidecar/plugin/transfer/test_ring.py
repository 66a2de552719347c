"""The ring against its specification: rows come out as they went in, and never twice at one place."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from subtext_sidecar.plugin.step import CaptureError, Step
from subtext_sidecar.plugin.transfer.device import CpuDevice, Layout, Run
from subtext_sidecar.plugin.transfer.ring import Ring

ROWS = 8


def step_of(values: list[int]) -> Step:
    """A step whose row i holds values[i], in all columns."""
    column = torch.tensor(values)
    residual = column[:, None].repeat(1, 4).to(torch.float32)
    return Step(["a"], [0, len(values)], [0], residual, 4, column.to(torch.int32), column)


def ring_of(rows: int = ROWS, max_steps: int = 256, dtype: torch.dtype = torch.float32) -> Ring:
    return Ring(CpuDevice(Layout(rows, 4, dtype), max_steps), max_steps)


def values_of(ring: Ring, run: Run) -> list[int]:
    gathered = ring.read(run)
    vectors = gathered.vectors.view(np.float32)
    assert (vectors == vectors[:, :1]).all()
    assert gathered.token_ids.tolist() == gathered.positions.tolist() == vectors[:, 0].tolist()
    return [int(value) for value in gathered.token_ids]


def gathered_by(ring: Ring, step: Step, indices: list[int]) -> Run:
    run = ring.gather(step, indices)
    assert run is not None
    return run


def test_a_run_holds_exactly_the_picked_rows_whatever_becomes_of_the_runners_buffers() -> None:
    step = step_of([10, 11, 12, 13, 14])
    ring = ring_of()

    run = gathered_by(ring, step, [1, 3])
    step.token_ids.zero_()
    step.positions.zero_()

    assert values_of(ring, run) == [11, 13]


def test_of_a_large_step_nothing_is_kept_but_the_rows() -> None:
    step = step_of(list(range(70_000)))
    ring = ring_of()

    run = gathered_by(ring, step, [7, 69_999])
    step.residual.zero_()

    assert ring.read(run).vectors.view(np.float32)[:, 0].tolist() == [7, 69_999]


def test_a_runner_may_replace_its_buffers() -> None:
    ring = ring_of()
    runs = [gathered_by(ring, step_of([value]), [0]) for value in (3, 4)]

    assert [values_of(ring, run) for run in runs] == [[3], [4]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_cpu_keeps_the_bytes_of_every_type(dtype: torch.dtype) -> None:
    residual = torch.randn(6, 4).to(dtype)
    ring = ring_of(dtype=dtype)
    step = replace(step_of(list(range(6))), residual=residual)

    gathered = ring.read(gathered_by(ring, step, [5, 0]))

    assert gathered.vectors.tobytes() == residual[[5, 0]].view(torch.uint8).numpy().tobytes()


def test_a_type_that_records_cannot_carry_is_refused() -> None:
    with pytest.raises(CaptureError, match="float64"):
        _ = Layout(ROWS, 4, torch.float64).dtype_name


def test_rows_without_room_do_not_fit_until_the_oldest_run_is_released() -> None:
    ring = ring_of()
    oldest = gathered_by(ring, step_of([1, 2, 3, 4, 5]), [0, 1, 2, 3, 4])

    assert ring.gather(step_of([6, 7, 8, 9]), [0, 1, 2, 3]) is None
    assert ring.full == "dropped_queue_full"
    newer = gathered_by(ring, step_of([6, 7, 8]), [0, 1, 2])
    ring.release(oldest)
    newest = gathered_by(ring, step_of([9, 10, 11, 12]), [0, 1, 2, 3])

    assert values_of(ring, newer) == [6, 7, 8]
    assert values_of(ring, newest) == [9, 10, 11, 12]


def test_more_steps_than_marks_do_not_fit() -> None:
    ring = ring_of(max_steps=2)
    runs = [gathered_by(ring, step_of([1]), [0]) for _ in range(2)]

    assert ring.gather(step_of([1]), [0]) is None
    assert ring.full == "dropped_ring_full"
    ring.release(runs[0])
    assert ring.gather(step_of([1]), [0]) is not None


@given(sizes=st.lists(st.integers(1, ROWS), max_size=60), reads=st.lists(st.booleans(), max_size=120))
def test_whatever_the_order_of_gathers_and_reads_every_run_keeps_its_own_rows(
    sizes: list[int], reads: list[bool]
) -> None:
    ring = ring_of(max_steps=3)
    waiting: deque[tuple[Run, list[int]]] = deque()
    pending, value = deque(sizes), 0

    def read_oldest() -> None:
        run, expected = waiting.popleft()
        assert values_of(ring, run) == expected
        ring.release(run)

    for is_read in [*reads, *([True, False] * len(sizes))]:
        if is_read and waiting:
            read_oldest()
        elif not is_read and pending:
            values = list(range(value, value + pending[0]))
            run = ring.gather(step_of(values), list(range(pending[0])))
            if run is not None:
                value += pending.popleft()
                waiting.append((run, values))
        assert sum(run.stop - run.first for run, _ in waiting) <= ROWS
    while waiting:
        read_oldest()
    assert ring.gather(step_of(list(range(ROWS))), list(range(ROWS))) is not None
