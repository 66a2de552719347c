"""A device for tests of the ring: its rows arrive late, as a GPU's do."""

from typing import Any

import numpy.typing as npt

from subtext_sidecar.plugin.device import CpuDevice, Layout
from subtext_sidecar.plugin.step import Step


class LateDevice(CpuDevice):
    """Keeps what was gathered aside, and shows it in host memory when it is waited for."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._columns: tuple[npt.NDArray[Any], ...] = (
            self.host.vectors,
            self.host.token_ids,
            self.host.positions,
        )
        self._late: dict[int, tuple[slice, list[npt.NDArray[Any]]]] = {}

    def gather(self, step: Step, first: int, stop: int, mark: int) -> None:
        """Gather now, show later."""
        rows = slice(first, stop)
        before = [column[rows].copy() for column in self._columns]
        super().gather(step, first, stop, mark)
        self._late[mark] = (rows, [column[rows].copy() for column in self._columns])
        for column, old in zip(self._columns, before, strict=True):
            column[rows] = old

    def wait(self, mark: int) -> None:
        """Show that gather's rows."""
        rows, columns = self._late.pop(mark)
        for column, late in zip(self._columns, columns, strict=True):
            column[rows] = late
