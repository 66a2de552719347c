"""The queue: procrastinate's, in a schema of its own in the same database, with the registry's jobs."""

import datetime as dt
from typing import Final

import structlog
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy

from service.keeper import tasks
from service.keeper.tasks import Keeping, Periodic
from service.store.engine import driver_url
from service.store.roles import QUEUE_SCHEMA

QUEUE: Final = "subtext"
TAKE_UP: Final = "take_up_jobs"
CLEAR: Final = "clear_jobs"
_CONNECTIONS: Final = 4
_KEPT_HOURS: Final = 24 * 30
_AGAIN_SECONDS: Final = 600
_BY_OURSELVES: Final = (TAKE_UP, CLEAR)

log = structlog.get_logger(__name__)


def job_names() -> list[str]:
    """Return the names of all jobs."""
    return [tasks.MAKE_EXPORT, *(one.name for one in tasks.PERIODIC), *_BY_OURSELVES]


def build(url: str, keeping: Keeping, lost_after_seconds: float) -> App:
    """Return the queue over this database; nothing connects before it is opened.

    A process that has not told of itself for ``lost_after_seconds`` is gone, and its jobs are taken up.
    """
    app, metrics = App(connector=_connector(url)), keeping.metrics
    _add_made_to_order(app, keeping)
    for one in tasks.PERIODIC:
        _add_periodic(app, one, keeping)

    @app.periodic(cron="* * * * *")
    @app.task(name=TAKE_UP, queue=QUEUE, queueing_lock=TAKE_UP, pass_context=True)
    async def take_up(context: JobContext, timestamp: int) -> None:
        del timestamp
        with metrics.run(TAKE_UP):
            metrics.taken_up.inc(await take_up_jobs(context.app, lost_after_seconds))

    @app.periodic(cron="17 * * * *")
    @app.task(name=CLEAR, queue=QUEUE, queueing_lock=CLEAR, pass_context=True)
    async def clear(context: JobContext, timestamp: int) -> None:
        del timestamp
        with metrics.run(CLEAR):
            await context.app.job_manager.delete_old_jobs(
                nb_hours=_KEPT_HOURS, include_failed=True, include_cancelled=True, include_aborted=True
            )

    return app


def _connector(url: str) -> PsycopgConnector:
    conninfo = driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return PsycopgConnector(
        conninfo=conninfo,
        min_size=1,
        max_size=_CONNECTIONS,
        kwargs={
            "options": f"-c search_path={QUEUE_SCHEMA}",
            "application_name": "subtext-keeper-queue",
            "prepare_threshold": None,
        },
    )


def _add_made_to_order(app: App, keeping: Keeping) -> None:
    retry = RetryStrategy(max_attempts=tasks.MOST_TRIES, exponential_wait=4)

    @app.task(name=tasks.MAKE_EXPORT, queue=QUEUE, retry=retry, pass_context=True)
    def make_export(context: JobContext, export: str) -> None:
        try:
            with keeping.metrics.run(tasks.MAKE_EXPORT):
                tasks.make_export(keeping, export)
        except Exception as error:
            if context.job.attempts + 1 >= tasks.MOST_TRIES:
                tasks.give_up_export(keeping, export, error)
            raise


def _add_periodic(app: App, one: Periodic, keeping: Keeping) -> None:
    # Never two at once, and none waits behind another that waits: the next one is due anyway.
    retry = RetryStrategy(max_attempts=one.tries - 1, wait=_AGAIN_SECONDS) if one.tries > 1 else False

    @app.periodic(cron=one.cron)
    @app.task(name=one.name, queue=QUEUE, lock=one.name, queueing_lock=one.name, retry=retry)
    def run(timestamp: int) -> None:
        with keeping.metrics.run(one.name):
            one.run(keeping, dt.datetime.fromtimestamp(timestamp, dt.UTC))


async def take_up_jobs(app: App, lost_after_seconds: float) -> int:
    """Put the jobs of processes that are gone back into the queue; return how many."""
    jobs = app.job_manager
    stalled = list(await jobs.get_stalled_jobs(seconds_since_heartbeat=lost_after_seconds))
    for job in stalled:
        log.warning("job_taken_up", job=job.task_name, attempts=job.attempts)
        await jobs.retry_job(job)
    return len(stalled)
