"""Progress of long steps on stderr: spinners with elapsed time on a terminal, plain lines elsewhere.

Never writes to stdout, whose last line is the demo's JSON.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from deploy.local.terminal import plain

_HEARTBEAT_SECONDS: Final = 20.0


class Step:
    """One long step that is under way; several may be at once."""

    def __init__(self, reporter: "Reporter", title: str, task: TaskID) -> None:
        """Made by Reporter.begin."""
        self.title = title
        self.task = task
        self._reporter = reporter
        self._started = time.monotonic()
        self._next_line = self._started + _HEARTBEAT_SECONDS

    def tick(self) -> None:
        """Say that the step is still going on; cheap to call often."""
        now = time.monotonic()
        if not self._reporter.is_live and now >= self._next_line:
            self._next_line = now + _HEARTBEAT_SECONDS
            self._reporter.line(f"… {self.title} ({self.elapsed_seconds():.0f} s)")

    def elapsed_seconds(self) -> float:
        """Return the time since the step began."""
        return time.monotonic() - self._started

    def done(self) -> None:
        """End the step with its duration."""
        self._reporter.end(self, "✓")

    def failed(self) -> None:
        """End the step as failed."""
        self._reporter.end(self, "✗")


class Reporter:
    """Writes progress for a person."""

    def __init__(self, console: Console, started_at: float) -> None:
        """``started_at``: Unix time that the elapsed times count from."""
        self.console = console
        self.is_live = console.is_terminal
        self._started_at = started_at
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self.is_live,
        )

    def begin(self, title: str) -> Step:
        """Show a step; the caller ends it with ``done`` or ``failed``."""
        if not self.is_live:
            self.line(f"▸ {title}")
        step = Step(self, title, self._progress.add_task(title))
        self._progress.start()
        return step

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step for as long as the block runs."""
        step = self.begin(title)
        try:
            yield step
        except BaseException:
            step.failed()
            raise
        step.done()

    def end(self, step: Step, mark: str) -> None:
        """Take the step off the screen and leave one line with its duration."""
        self._progress.remove_task(step.task)
        if not self._progress.tasks:
            self._progress.stop()
        self.line(f"{mark} {step.title} ({step.elapsed_seconds():.1f} s)")

    def line(self, text: str) -> None:
        """Write one line with the time since the start."""
        elapsed = time.time() - self._started_at
        self.console.print(
            f"[{elapsed:6.1f} s] {plain(text)}", markup=False, highlight=False, soft_wrap=True
        )
