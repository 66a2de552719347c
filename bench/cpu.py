"""CPU time of process trees, which varies less than wall time on shared cores."""

from typing import NamedTuple

import psutil


class CpuSeconds(NamedTuple):
    """User plus system time, in seconds."""

    engine: float  # engine core and worker, where capture runs
    server: float  # engine plus HTTP front end


def of_server(tether_pid: int) -> CpuSeconds:
    """Return the CPU time of the vLLM server started below the tether process."""
    server = engine = 0.0
    for process in psutil.Process(tether_pid).children(recursive=True):
        seconds = _seconds(process)
        server += seconds
        # vLLM renames its engine processes to VLLM::..., but not the front end.
        engine += seconds if "VLLM::" in " ".join(process.cmdline()) else 0.0
    return CpuSeconds(engine=engine, server=server)


def of_tree(tether_pid: int) -> float:
    """Return the CPU time of all processes below the tether process."""
    return sum(map(_seconds, psutil.Process(tether_pid).children(recursive=True)))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
