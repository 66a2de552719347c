"""The ring on a CUDA device: right rows, no synchronisation, and no memory taken while it runs."""

from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Layout, Run
from subtext_sidecar.plugin.transfer.ring import Ring, open_ring

pytestmark = pytest.mark.gpu

ROWS, D_MODEL, BATCH = 256, 4096, 512


@pytest.fixture
def device() -> Iterator[torch.device]:
    assert torch.cuda.is_available(), "these tests were asked for, and need a CUDA device"
    yield torch.device("cuda")
    torch.cuda.set_sync_debug_mode("default")


class Model:
    """Overwrites the same buffers in every step, as a replayed CUDA graph does."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._residual = torch.zeros((BATCH, D_MODEL), dtype=dtype, device=device)
        self._token_ids = torch.zeros(BATCH, dtype=torch.int32, device=device)
        self._positions = torch.zeros(BATCH, dtype=torch.int64, device=device)
        self._rows = torch.arange(BATCH, device=device)
        self._load = torch.randn((2048, 2048), device=device)

    def run(self, number: int) -> Step:
        self._load @ self._load  # the device is behind the host
        self._positions.copy_(self._rows + number % 100)
        self._token_ids.copy_(self._positions)
        self._residual.copy_(self._positions[:, None])
        return Step(
            ["a"], [0, BATCH], [number % 100], self._residual, D_MODEL, self._token_ids, self._positions
        )


def values_of(ring: Ring, run: Run, dtype: torch.dtype) -> list[int]:
    gathered = ring.read(run)
    vectors = torch.from_numpy(gathered.vectors.copy()).view(dtype).float().numpy()
    assert (vectors == vectors[:, :1]).all()
    assert gathered.positions.tolist() == gathered.token_ids.tolist() == vectors[:, 0].tolist()
    return [int(value) for value in gathered.positions]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_survive_the_next_steps_and_neither_wait_nor_allocate(
    device: torch.device, dtype: torch.dtype
) -> None:
    ring, model = open_ring(Layout(ROWS, D_MODEL, dtype), device), Model(device, dtype)
    random = np.random.default_rng(0)
    model.run(0)
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    waiting: deque[tuple[Run, list[int]]] = deque()
    allocated = torch.cuda.memory_stats(device)["allocation.all.allocated"]
    taken = 0
    for number in range(300):
        before = torch.cuda.memory_stats(device)["allocation.all.allocated"]
        step = model.run(number)
        own = torch.cuda.memory_stats(device)["allocation.all.allocated"] - before
        # Above 156 bfloat16 and above 2048 float16 skip whole numbers.
        indices = sorted(random.choice(150, size=int(random.integers(1, 40)), replace=False).tolist())
        run = ring.gather(step, indices)
        allocated += own
        if run is not None:
            waiting.append((run, [index + number % 100 for index in indices]))
            taken += 1
        while len(waiting) > int(random.integers(0, 8)):
            oldest, expected = waiting.popleft()
            assert values_of(ring, oldest, dtype) == expected
            ring.release(oldest)
    assert torch.cuda.memory_stats(device)["allocation.all.allocated"] == allocated
    assert taken > 200


def test_a_slow_device_drops_steps_instead_of_making_the_host_wait(device: torch.device) -> None:
    ring, model = open_ring(Layout(ROWS, D_MODEL, torch.bfloat16), device), Model(device, torch.bfloat16)
    runs = [ring.gather(model.run(number), list(range(8))) for number in range(40)]

    assert [run is not None for run in runs] == [True] * 32 + [False] * 8
    assert ring.full == "dropped_queue_full"
