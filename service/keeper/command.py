"""`subtext keeper`: run jobs until SIGTERM; a job that does not end in time is taken up by the next one."""

import argparse
import asyncio
import datetime as dt
import signal
import sys
import threading
from typing import Final

import psycopg_pool
import redis
import structlog
from procrastinate.exceptions import ConnectorException
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy import Engine

from service import log as logging
from service.exports.make import Maker
from service.keeper import app as queue
from service.keeper.metrics import KeeperMetrics
from service.keeper.tasks import Keeping
from service.settings import KeeperSettings, SettingsError, keeper_settings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory

log = structlog.get_logger(__name__)
_BAD_USE: Final = 2
_REFUSED: Final = 1
_AT_ONCE: Final = 4
_HEARTBEAT_SECONDS: Final = 10.0
_LOST_AFTER_SECONDS: Final = 60.0
_END_WITHIN_SECONDS: Final = 20.0
_AGAIN_SECONDS: Final = 5.0
_REDIS_TIMEOUT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 3600.0
_AWAY: Final = (ConnectorException, psycopg_pool.PoolTimeout, OSError)


def run(argv: list[str]) -> int:
    """Run jobs until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="subtext keeper",
        description="Run the jobs of the store in SUBTEXT_DATABASE_URL: exports, and what is due by the"
        " clock. Settings: SUBTEXT_DATABASE_URL, SUBTEXT_DATABASE_PASSWORD_FILE, SUBTEXT_EXPORT_FOLDER,"
        " SUBTEXT_EXPORT_DAYS, SUBTEXT_EXPORT_SIGNED_WITHIN_SECONDS, SUBTEXT_REDIS_URL, without which"
        " erasures wait, SUBTEXT_REDIS_PASSWORD_FILE, SUBTEXT_ERASE_SETTLE_SECONDS, SUBTEXT_HTTP_HOST,"
        " SUBTEXT_HTTP_PORT, SUBTEXT_PLAIN_HTTP, SUBTEXT_LOG_LEVEL.",
    )
    parser.parse_args(argv)
    try:
        settings = keeper_settings()
    except SettingsError as error:
        sys.stderr.write(f"subtext keeper: {error}\n")
        return _BAD_USE
    return _serve(settings)


def _serve(settings: KeeperSettings) -> int:
    logging.configure(settings.log_level)
    engine = create_engine(
        settings.database,
        pool_size=_AT_ONCE + 1,
        application_name="subtext-keeper",
        statement_timeout_seconds=_STATEMENT_SECONDS,
    )
    streams, stopping = _streams(settings), threading.Event()
    registry = CollectorRegistry()
    keeping = _keeping(settings, engine, streams, KeeperMetrics(registry, queue.job_names()), stopping)
    server, _ = start_http_server(settings.http_port, settings.http_host, registry)
    log.info("keeper_starts", jobs=queue.job_names(), erases=streams is not None)
    try:
        asyncio.run(_work(settings.database, keeping, stopping))
    except UnusableDatabaseError as error:
        log.critical("keeper_refused", error=str(error))
        return _REFUSED
    finally:
        server.shutdown()
        server.server_close()
        engine.dispose()
        if streams is not None:
            streams.close()
    return 0


def _streams(settings: KeeperSettings) -> redis.Redis | None:
    if settings.redis_url is None:
        return None
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        password=settings.redis_password,
        socket_timeout=_REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
    )


def _keeping(
    settings: KeeperSettings,
    engine: Engine,
    streams: redis.Redis | None,
    metrics: KeeperMetrics,
    stopping: threading.Event,
) -> Keeping:
    sessions = session_factory(engine)
    maker = Maker(
        sessions=sessions,
        folder=settings.export_folder,
        kept=dt.timedelta(days=settings.export_days),
        signed_within_seconds=settings.export_signed_within_seconds,
    )
    return Keeping(
        engine=engine,
        sessions=sessions,
        metrics=metrics,
        export_folder=settings.export_folder,
        maker=maker,
        streams=streams,
        erase_settle_seconds=settings.erase_settle_seconds,
        stop=stopping.is_set,
    )


async def _work(url: str, keeping: Keeping, stopping: threading.Event) -> None:
    """Run the queue; begin again when the database was away."""
    stop = asyncio.Event()

    def end() -> None:
        stopping.set()
        stop.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, end)
    while not stop.is_set():
        try:
            await _work_until(stop, url, keeping)
        except _AWAY as error:
            log.warning("store_away", error=type(error).__name__)
            await _pause(stop)


async def _work_until(stop: asyncio.Event, url: str, keeping: Keeping) -> None:
    app = queue.build(url, keeping, _LOST_AFTER_SECONDS)
    async with app.open_async():
        # At once, and not only when it is due: whoever restarts after a crash waits for its jobs.
        keeping.metrics.taken_up.inc(await queue.take_up_jobs(app, _LOST_AFTER_SECONDS))
        working = asyncio.create_task(
            app.run_worker_async(
                queues=[queue.QUEUE],
                concurrency=_AT_ONCE,
                install_signal_handlers=False,
                shutdown_graceful_timeout=_END_WITHIN_SECONDS,
                update_heartbeat_interval=_HEARTBEAT_SECONDS,
                stalled_worker_timeout=_LOST_AFTER_SECONDS,
                delete_jobs="successful",
            )
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            working.cancel()
        try:
            await working
        except asyncio.CancelledError:
            if not stop.is_set():
                raise


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), _AGAIN_SECONDS)
    except TimeoutError:
        return
