"""A worker tells that its configuration ends once its last batch is stored, and not before."""

import threading
from types import SimpleNamespace
from typing import Any

from workers.consumer.outage.progress import Progress
from workers.consumer.serving import serve


def test_the_end_of_the_configuration_is_told_after_the_last_batch() -> None:
    stop, reported, happened = threading.Event(), threading.Event(), list[str]()
    waiting = SimpleNamespace(run=lambda stop: stop.wait())

    def report() -> None:
        stop.wait()
        happened.append("told to stop")
        reported.set()

    def work() -> None:
        stop.set()
        reported.wait()
        happened.append("last batch")

    parts: Any = SimpleNamespace(
        stop=stop,
        progress=Progress(3600.0),
        intake=waiting,
        old_stream=waiting,
        discoveries=waiting,
        incident_repair=waiting,
        gauges=waiting,
        report_configuration=report,
        end_configuration=lambda: happened.append("end told"),
    )
    loop: Any = SimpleNamespace(run=work, hand_back=lambda: None)

    assert serve(parts, loop) == 0
    assert happened == ["told to stop", "last batch", "end told"]
