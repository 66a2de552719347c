"""Run a wired worker: its loop in this thread, its side tasks in others, all ending together."""

import threading
from collections.abc import Callable

import structlog

from workers.consumer.loop import WorkerLoop
from workers.consumer.outage.progress import Watchdog
from workers.consumer.wiring import Parts
from workers.errors import UNUSABLE_STORES

log = structlog.get_logger()

_DIED = 1
_UNUSABLE = 2


def serve(parts: Parts, loop: WorkerLoop, *, grace_seconds: float = 30.0) -> int:
    """Work until told to stop; return the exit status.

    That is 2 when a store turned out to be unusable as it is, else 1 when something died on the way. A loop
    that hangs ends the process ``grace_seconds`` after its deadline.
    """
    stop = parts.stop
    tasks = [
        SideTask("coverage", lambda: parts.intake.run(stop), stop),
        SideTask("old_stream", lambda: parts.old_stream.run(stop), stop),
        SideTask("discoveries", lambda: parts.discoveries.run(stop), stop),
        SideTask("incident_repair", lambda: parts.incident_repair.run(stop), stop),
        SideTask("configuration", parts.report_configuration, stop),
        SideTask("gauges", lambda: parts.gauges.run(stop), stop),
    ]
    watchdog = Watchdog(parts.progress, loop.hand_back, grace_seconds=grace_seconds)
    watchdog.start()
    statuses: list[int] = []
    try:
        statuses.append(_status_of("loop", loop.run))
    finally:
        stop.set()
        for task in tasks:
            task.join(timeout=5)
            statuses.append(task.status)
        # The loop has ended, so this is when its last row was stored.
        SideTask("configuration_end", parts.end_configuration, stop).join(timeout=5)
        watchdog.close()
    log.info("worker_stopped")
    return max(statuses)


class SideTask(threading.Thread):
    """A task whose death stops the process: a worker without gauges looks healthy and is not."""

    def __init__(self, name: str, act: Callable[[], None], stop: threading.Event) -> None:
        """Start at once."""
        super().__init__(name=name, daemon=True)
        self.status = 0  # what the process is to end with
        self._act = act
        self._stop_all = stop
        self.start()

    def run(self) -> None:
        """Act to the end; whatever ends it ends the process."""
        try:
            self.status = _status_of(self.name, self._act)
        finally:
            self._stop_all.set()


def _status_of(task: str, act: Callable[[], None]) -> int:
    try:
        act()
    except UNUSABLE_STORES as error:
        log.error("store_unusable", task=task, detail=str(error))  # noqa: TRY400  # the message names the fix
        return _UNUSABLE
    except Exception:
        log.exception("task_died", task=task)
        return _DIED
    return 0
