"""Run a wired worker: its loop in this thread, its side tasks in others, all ending together."""

import threading
from collections.abc import Callable

import structlog

from workers.consumer.loop import WorkerLoop
from workers.consumer.outage.progress import Watchdog
from workers.consumer.wiring import Parts

log = structlog.get_logger()


def serve(parts: Parts, loop: WorkerLoop, *, grace_seconds: float = 30.0) -> int:
    """Work until told to stop; return the exit status, 1 when something died on the way.

    A loop that hangs ends the process ``grace_seconds`` after its deadline.
    """
    stop = parts.stop
    tasks = [
        SideTask("coverage", lambda: parts.intake.run(stop), stop),
        SideTask("gauges", lambda: parts.gauges.run(stop), stop),
    ]
    watchdog = Watchdog(parts.progress, loop.hand_back, grace_seconds=grace_seconds)
    watchdog.start()
    has_failed = False
    try:
        loop.run()
    except Exception:
        has_failed = True
        log.exception("task_died", task="loop")
    finally:
        stop.set()
        for task in tasks:
            task.join(timeout=5)
        watchdog.close()
    log.info("worker_stopped")
    return 1 if has_failed or any(task.has_failed for task in tasks) else 0


class SideTask(threading.Thread):
    """A task whose death stops the process: a worker without gauges looks healthy and is not."""

    def __init__(self, name: str, act: Callable[[], None], stop: threading.Event) -> None:
        """Start at once."""
        super().__init__(name=name, daemon=True)
        self.has_failed = False
        self._act = act
        self._stop_all = stop
        self.start()

    def run(self) -> None:
        """Act to the end; whatever ends it ends the process."""
        try:
            self._act()
        except Exception:
            self.has_failed = True
            log.exception("task_died", task=self.name)
        finally:
            self._stop_all.set()
