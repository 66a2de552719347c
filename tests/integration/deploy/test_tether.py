"""Nothing that the demo starts may outlive it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local.process import DemoProcess, ProcessDiedError, ProcessSpec
from tests.support.waiting import wait_until

# A command that leaves a daemon in another session, as PostgreSQL and vLLM's engines are.
LEAVES_A_DAEMON = """
import pathlib, subprocess, sys, time
daemon = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(daemon.pid))
time.sleep(float(sys.argv[2]))
"""
IGNORES_SIGTERM = """
import pathlib, signal, os, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""
# A shell lets what it runs in the background ignore SIGINT, the test run included.
STARTS_A_PROCESS_AND_WAITS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from deploy.local.process import DemoProcess, ProcessSpec
command = (sys.executable, "-c", sys.argv[1], sys.argv[2], "600")
DemoProcess(ProcessSpec(name="child", command=command, env={}), pathlib.Path(sys.argv[2] + ".log"))
time.sleep(600)
"""


def written_pid(path: Path) -> int:
    wait_until("its pid is written", lambda: path.exists() and bool(path.read_text()))
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def start(tmp_path: Path, source: str, *arguments: str, grace_seconds: float = 5) -> DemoProcess:
    command = (sys.executable, "-c", source, *arguments)
    spec = ProcessSpec(name="child", command=command, env={}, grace_seconds=grace_seconds)
    return DemoProcess(spec, tmp_path / "child.log")


def test_stopping_a_process_ends_the_daemon_that_it_left_in_another_session(tmp_path: Path) -> None:
    process = start(tmp_path, LEAVES_A_DAEMON, str(tmp_path / "pid"), "600")
    daemon = written_pid(tmp_path / "pid")

    process.ask_to_stop()
    was_killed = process.wait_stopped()

    assert not was_killed
    assert is_gone(daemon)


def test_a_daemon_does_not_outlive_the_command_that_exits_by_itself(tmp_path: Path) -> None:
    process = start(tmp_path, LEAVES_A_DAEMON, str(tmp_path / "pid"), "0")

    wait_until("its success", process.has_succeeded)

    assert is_gone(written_pid(tmp_path / "pid"))


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = start(tmp_path, IGNORES_SIGTERM, str(tmp_path / "pid"), grace_seconds=0.5)
    child = written_pid(tmp_path / "pid")

    process.ask_to_stop()
    process.wait_stopped()

    assert is_gone(child)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_every_process_ends_when_the_demo_dies(tmp_path: Path, death: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_PROCESS_AND_WAITS, LEAVES_A_DAEMON, str(tmp_path / "pid")]
    )
    daemon = written_pid(tmp_path / "pid")
    tethers = psutil.Process(demo.pid).children()

    os.kill(demo.pid, death)
    demo.wait()

    wait_until("the end of the daemon", lambda: is_gone(daemon))
    wait_until("the end of the tethers", lambda: all(is_gone(tether.pid) for tether in tethers))


def test_a_process_that_dies_is_reported_with_the_tail_of_its_log(tmp_path: Path) -> None:
    process = start(tmp_path, "import sys; print('out of cheese'); sys.exit(3)")

    with pytest.raises(ProcessDiedError, match=r"child ended with status 3(?s:.)*out of cheese"):
        wait_until("its success", process.has_succeeded)
