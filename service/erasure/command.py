"""`subtext erase`: carry out the requests for erasure that are due, until all are done or once."""

import argparse
import sys
import time
from typing import Final

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from service import log as logging
from service.erasure import run as erasure
from service.settings import EraseSettings, SettingsError, erase_settings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory

log = structlog.get_logger(__name__)
_STILL_OPEN: Final = 1
_BAD_USE: Final = 2
_PAUSE_SECONDS: Final = 5.0
_REDIS_TIMEOUT_SECONDS: Final = 10.0


def run(argv: list[str]) -> int:
    """Sweep until all that is due is done; return the exit status.

    0: nothing is open any more. 1: something waits for objections, or ``--once`` leaves something. 2: it
    cannot work.
    """
    parser = argparse.ArgumentParser(
        prog="subtext erase",
        description="Carry out every request for erasure that is due, in tables, streams and dead letters."
        " It may be killed and run again. What a legal hold keeps leaves a request open. A request to which"
        " somebody may still object is not due, here as little as elsewhere, and exits 1. Settings:"
        " SUBTEXT_DATABASE_URL, SUBTEXT_REDIS_URL, SUBTEXT_REDIS_PASSWORD_FILE,"
        " SUBTEXT_ERASE_SETTLE_SECONDS, SUBTEXT_EXPORT_FOLDER,"
        " SUBTEXT_LOG_LEVEL.",
    )
    parser.add_argument("--once", action="store_true", help="sweep once; exit 1 when something stays open")
    options = parser.parse_args(argv)
    try:
        settings = erase_settings()
    except SettingsError as error:
        sys.stderr.write(f"subtext erase: {error}\n")
        return _BAD_USE
    logging.configure(settings.log_level)
    try:
        return _sweep(settings, is_once=options.once)
    except (SQLAlchemyError, UnusableDatabaseError, redis.RedisError) as error:
        # No more than its type: an identifier must not be in a log.
        log.critical("erasure_failed", error_type=type(error).__name__)
        return _BAD_USE


def _sweep(settings: EraseSettings, *, is_once: bool) -> int:
    engine = create_engine(settings.database, pool_size=2, application_name="subtext-erase")
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        password=settings.redis_password,
        socket_timeout=_REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
    )
    sessions = session_factory(engine)
    try:
        while True:
            swept = erasure.run(
                sessions,
                client,
                settle_seconds=settings.erase_settle_seconds,
                exports=settings.export_folder,
            )
            if not swept.open:
                if swept.waiting:
                    log.info("erasures_wait", waiting=swept.waiting, see="GET /v1/erasures")
                return _STILL_OPEN if swept.waiting else 0
            if is_once:
                return _STILL_OPEN
            time.sleep(_PAUSE_SECONDS)
    finally:
        client.close()
        engine.dispose()
