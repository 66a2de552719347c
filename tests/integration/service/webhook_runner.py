"""A courier in a process of its own that kills itself where it is told to.

Usage: ``python -m tests.integration.service.webhook_runner CHECKPOINT LEASE_SECONDS``, settings as
`subtext service`.
"""

import datetime as dt
import os
import signal
import sys

from prometheus_client import CollectorRegistry

from service.incident_metrics import IncidentMetrics
from service.settings import service_settings
from service.store.engine import create_engine, session_factory
from service.webhooks.courier import Checkpoint, Courier, Limits


def main(checkpoint: str, lease_seconds: str) -> int:
    settings = service_settings()
    sessions = session_factory(create_engine(settings.database))

    def reached(now: Checkpoint) -> None:
        if now == checkpoint:
            os.kill(os.getpid(), signal.SIGKILL)

    courier = Courier(
        sessions,
        settings.webhooks,
        IncidentMetrics(CollectorRegistry()),
        limits=Limits(lease=dt.timedelta(seconds=float(lease_seconds))),
        reached=reached,
    )
    courier.deliver_next(settings.webhooks[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
