"""The schema's version: bring a database to head, and tell whether it is there.

Finds ``migrations`` beside the package ``service``, in a checkout and when installed alike, so it
needs no alembic.ini and no working directory.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from service.store import locks, partitions, roles
from service.store.engine import create_migrator

_TRIES: Final = 60
_PAUSE_SECONDS: Final = 1.5
_SCRIPTS: Final = Path(__file__).resolve().parents[2] / "migrations"


def config(url: str | None = None) -> Config:
    """Return Alembic's configuration for the packaged migrations and this database."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.attributes["url"] = url
    return made


def upgrade(url: str, revision: str = "head") -> roles.Advice | None:
    """Migrate the database up to ``revision``, grant its roles what they need there and make days ahead.

    A second migrator waits for the first. Returns what an administrator has to do for the roles where this
    login may not.
    """
    _run(alembic.command.upgrade, url, revision)
    advice = roles.apply(url)
    _make_days_ahead(url)
    return advice


def _run(command: Callable[[Config, str], None], url: str, revision: str) -> None:
    """Run the revisions; one that finds a table in use is begun again, for about two minutes.

    A query names its tables in any order, so none in which they are locked is safe from all. Each revision
    can be run again after it was interrupted.
    """
    locks.when_free(lambda: command(config(url), revision), tries=_TRIES, pause_seconds=_PAUSE_SECONDS)


def _make_days_ahead(url: str) -> None:
    """Make days ahead where there are such: whoever keeps the store goes on, and a worker needs none."""
    engine = create_migrator(url)
    try:
        with engine.connect() as connection:
            query = "SELECT to_regprocedure('subtext_make_day(date)') IS NOT NULL"
            has_days = connection.execute(text(query)).scalar_one()
        if has_days:
            partitions.make_ahead(engine, dt.datetime.now(dt.UTC).date())
    finally:
        engine.dispose()


def downgrade(url: str, revision: str) -> None:
    """Migrate the database down to ``revision`` (``base`` empties it). Data in dropped tables is lost."""
    _run(alembic.command.downgrade, url, revision)


def current_revision(engine: Engine) -> str | None:
    """Return the revision that the database is at, None when it was never migrated."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """Return the newest revision that this code knows."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    if head is None:
        raise RuntimeError("the migrations package holds no revision; reinstall subtext")
    return head


def is_at_head(engine: Engine) -> bool:
    """Tell whether the database is at the newest revision that this code knows."""
    return current_revision(engine) == head_revision()
