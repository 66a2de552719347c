"""Run one command so that nothing of it can outlive the demo.

Usage: ``python -m deploy.local.tether PARENT_PID GRACE_SECONDS COMMAND...``

The tether is the command's parent and the adopter of everything that the command leaves behind
(vLLM's engine processes, PostgreSQL's daemons). It ends the whole tree, politely first, when it is
told to, when the command exits, and when the demo itself dies in whatever way. Linux only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LEFTOVER_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.25  # a signal ends the wait at once; only the command's own exit waits for this


def die_with_parent(signum: signal.Signals) -> None:
    """Ask the kernel to send this process ``signum`` when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def run(parent_pid: int, grace_seconds: float, command: list[str]) -> int:
    """Run the command to its end and return its exit status, with no descendant left.

    1. Tie this process to its parent, and make it the adopter of orphans.
    2. Start the command in its own process group, tied to this process.
    3. Wait for the command's exit or for a stopping signal.
    4. On a signal, pass SIGTERM to the command and wait up to ``grace_seconds`` for it.
    5. End whatever is left below this process: SIGTERM, then SIGKILL.
    """
    die_with_parent(signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent_pid:
        return 1  # the demo died before the kernel knew to tell us
    # Blocked, so that no signal is lost between two waits; the command gets them unblocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    # preexec_fn is safe here: this process has one thread.
    child = subprocess.Popen(command, process_group=0, preexec_fn=_prepare_child)  # noqa: PLW1509
    if _wait(child, seconds=None):
        child.terminate()
        _wait(child, seconds=grace_seconds, until_signal=False)
    _end_descendants()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _prepare_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    die_with_parent(signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes], *, seconds: float | None, until_signal: bool = True) -> bool:
    """Wait for the child's exit; True when a stopping signal came first."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while child.poll() is None and (deadline is None or time.monotonic() < deadline):
        # Signals that came are taken even when they are to be ignored, so that the loop keeps its pace.
        if signal.sigtimedwait(_STOPPING, _POLL_SECONDS) and until_signal:
            return True
        _reap_adopted(child.pid)
    return False


def _reap_adopted(child_pid: int) -> None:
    """Collect orphans that ended, or they would stay as zombies as long as the command runs."""
    # WNOWAIT looks without taking: the command's own exit status belongs to Popen.
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is not None and ended.si_pid != child_pid:
        os.waitpid(ended.si_pid, os.WNOHANG)


def _end_descendants() -> None:
    for end, seconds in (("terminate", _LEFTOVER_GRACE_SECONDS), ("kill", _LEFTOVER_GRACE_SECONDS)):
        descendants = psutil.Process().children(recursive=True)
        for process in descendants:
            try:
                getattr(process, end)()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(descendants, timeout=seconds)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed; this demo needs Linux")


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
