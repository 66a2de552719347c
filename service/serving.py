"""The service process: opens what it needs, serves until a signal, closes it again."""

import contextlib
import gc
import signal
import socket
from types import FrameType
from typing import Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import configure_mappers

from service import log
from service.api.app import create_app
from service.api.deps import Resources
from service.api.live.hub import Hub
from service.incident_metrics import IncidentMetrics
from service.metrics import Metrics
from service.settings import ServiceSettings
from service.store.engine import create_engine, ping, session_factory
from service.watch.incident_watch import IncidentWatch
from service.watch.key_watch import KeyWatch
from service.watch.partition_watch import PartitionWatch
from service.watch.pool_warmer import PoolWarmer
from service.watch.prevalence_watch import PrevalenceWatch, WatchPlan
from service.webhooks.courier import Courier

_YOUNG_OBJECTS: Final = 5000


class Server(uvicorn.Server):
    """Ends event streams before it waits for what is under way: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, live: Hub) -> None:
        super().__init__(config)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down; uvicorn calls it in its loop."""
        self._live.close()
        await super().shutdown(sockets)


def serve(settings: ServiceSettings) -> int:
    """Serve REST in this process and return the exit status.

    Starts without a database too: /readyz says so until it is there. Raises UnusableDatabaseError when
    it is there and can never be used, and ListeningError when TLS files cannot.
    """
    log.configure(settings.log_level)
    tls = settings.tls
    context = None if tls is None else tls.context()  # in uvicorn a bad one would end with a traceback
    engine = create_engine(
        settings.database,
        pool_size=settings.database_pool_size,
        statement_timeout_seconds=settings.query_timeout_seconds,
        application_name="subtext-service",
    )
    with contextlib.suppress(SQLAlchemyError):
        ping(engine)
    registry = CollectorRegistry(auto_describe=True)
    sessions, metrics, incident_metrics = (
        session_factory(engine),
        Metrics(registry),
        IncidentMetrics(registry),
    )
    metrics.set_prevalence_thresholds(settings.prevalence_thresholds)
    plan = WatchPlan(
        settings.prevalence_hours, settings.prevalence_every_seconds, settings.prevalence_thresholds
    )
    webhooks = settings.webhooks
    beside = (
        PoolWarmer(engine),
        KeyWatch(sessions, metrics),
        PartitionWatch(engine, metrics),
        PrevalenceWatch(sessions, metrics, plan),
        IncidentWatch(sessions, incident_metrics, {one.name: one.tenant_id for one in webhooks}),
        Courier(sessions, webhooks, incident_metrics, public_url=settings.public_url),
    )
    resources = Resources(
        engine=engine,
        sessions=sessions,
        metrics=metrics,
        plan=settings.plan,
        exports=settings.export_folder,
        subject_secret=settings.subject_secret,
        grafana_url=settings.grafana_url,
    )
    structlog.get_logger(__name__).info("service_starts", host=settings.http_host, port=settings.http_port)
    server = Server(
        uvicorn.Config(
            create_app(resources),
            host=settings.http_host,
            port=settings.http_port,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
            root_path=settings.root_path,
            log_config=None,  # ours is configured already
            access_log=False,  # paths hold request ids; the duration metric counts requests
            server_header=False,
            timeout_graceful_shutdown=10,
        ),
        resources.live,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn puts its own handler in front of this one and, once it has stopped, raises the signal
    # again: without ours that would end the process before it can close its connections.
    signal.signal(signal.SIGTERM, stop)
    _freeze()
    for thread in beside:
        thread.start()
    try:
        server.run()
    finally:
        for thread in beside:
            thread.close()
        engine.dispose()
    return 0 if server.started else 1


def _freeze() -> None:
    """Let the collector pass over what is there from the start, modules and routes, and never goes.

    Else every full collection walks a quarter of a million objects, while a page of a listing waits for it.
    A page makes some thousands: the youngest are looked at when there are as many, not each time 700 are.
    """
    configure_mappers()  # else the first query does, and what it makes is young
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
