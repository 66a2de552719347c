"""The set of started processes: start, wait until ready, and stop in reverse order."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from deploy.local.process import DemoProcess, ProcessSpec
from deploy.local.progress import Reporter, Step

_POLL_SECONDS = 0.2


class StartTimeoutError(RuntimeError):
    """Something did not become ready in time."""


class Stack:
    """Owns the demo's processes; leaving the ``with`` block ends every one of them."""

    def __init__(self, logs_dir: Path, reporter: Reporter) -> None:
        """Write the logs of the processes to ``logs_dir``."""
        self._logs_dir = logs_dir
        self._reporter = reporter
        self._processes: list[DemoProcess] = []

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, whatever happened."""
        self.stop()

    def start(self, spec: ProcessSpec) -> DemoProcess:
        """Start a process; the stack watches and ends it. Main thread only."""
        process = DemoProcess(spec, self._logs_dir / f"{spec.name}.log")
        self._processes.append(process)
        return process

    def check(self) -> None:
        """Raise ProcessDiedError when any process has ended."""
        for process in self._processes:
            process.check()

    def run(self, spec: ProcessSpec, title: str, deadline_seconds: float) -> None:
        """Run a process to its successful end; raises ProcessDiedError when it fails."""
        process = DemoProcess(spec, self._logs_dir / f"{spec.name}.log")
        with self._reporter.step(title) as step:
            try:
                self._wait(process.has_succeeded, deadline_seconds, step)
            finally:
                process.ask_to_stop()
                process.wait_stopped()

    def wait_until(self, title: str, condition: Callable[[], bool], deadline_seconds: float) -> None:
        """Wait for one condition, watching the processes."""
        with self._reporter.step(title) as step:
            self._wait(condition, deadline_seconds, step)

    def wait_ready(self, urls: Mapping[str, str], deadline_seconds: float) -> None:
        """Wait until every URL answers 200; ``urls`` maps a step's title to its URL."""
        pending = {title: self._reporter.begin(title) for title in urls}
        deadline = time.monotonic() + deadline_seconds
        try:
            while pending:
                for title in [title for title in pending if answers(urls[title])]:
                    pending.pop(title).done()
                self._pause(list(pending.values()), deadline)
        finally:
            for step in pending.values():
                step.failed()

    def stop(self) -> None:
        """Ask in reverse order, then wait; the stores go last, because others flush into them."""
        stores = [process for process in self._processes if process.spec.is_store]
        others = [process for process in self._processes if not process.spec.is_store]
        self._processes = []
        if not stores and not others:
            return
        with self._reporter.step("stopping every process"):
            for group in (others, stores):
                for process in reversed(group):
                    process.ask_to_stop()
                for process in reversed(group):
                    if process.wait_stopped():
                        self._reporter.line(f"{process.spec.name} did not stop and was killed")

    def _wait(self, condition: Callable[[], bool], deadline_seconds: float, step: Step) -> None:
        deadline = time.monotonic() + deadline_seconds
        while not condition():
            self._pause([step], deadline)

    def _pause(self, steps: list[Step], deadline: float) -> None:
        self.check()
        for step in steps:
            step.tick()
        if steps and time.monotonic() > deadline:
            titles = ", ".join(step.title for step in steps)
            tails = "\n".join(f"  {process.log_path}:\n{process.tail()}" for process in self._processes)
            raise StartTimeoutError(f"not done in time: {titles}\n{tails}")
        time.sleep(_POLL_SECONDS if steps else 0)


def answers(url: str) -> bool:
    """Tell whether a GET gives 200."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    return False
