"""CPU time of process trees: on shared cores it is steadier than time on the clock."""

from typing import NamedTuple

import psutil


class CpuSeconds(NamedTuple):
    """User and system time so far."""

    engine: float  # engine core and worker, where capture runs
    server: float  # the same plus the HTTP front end


def of_server(tether_pid: int) -> CpuSeconds:
    """Return the CPU time of a vLLM server below its tether."""
    server = engine = 0.0
    for process in psutil.Process(tether_pid).children(recursive=True):
        seconds = _seconds(process)
        server += seconds
        # vLLM names its engine processes so; the front end keeps its command line.
        engine += seconds if "VLLM::" in " ".join(process.cmdline()) else 0.0
    return CpuSeconds(engine=engine, server=server)


def of_tree(tether_pid: int) -> float:
    """Return the CPU time of everything below a tether."""
    return sum(map(_seconds, psutil.Process(tether_pid).children(recursive=True)))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
