"""The registry of jobs: what runs when it is due, and what runs when somebody asks for it.

A job may run twice, when its process was killed in the middle: each is written so that this does no harm.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from service.exports.expire import expire
from service.exports.make import ExportError, Maker


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What jobs work with."""

    sessions: sessionmaker[Session]
    """Of the keeper's own login."""
    export_folder: Path
    maker: Maker


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that is due by a cron expression, in UTC."""

    name: str
    cron: str
    run: Callable[[Keeping, dt.datetime], object]
    """Told when it was due."""


def _expire_exports(keeping: Keeping, _due: dt.datetime) -> None:
    expire(keeping.sessions, keeping.export_folder)


# One line each: retention, erasure and the making of partitions are registered here.
PERIODIC: Final[Sequence[Periodic]] = (Periodic("expire_exports", "*/5 * * * *", _expire_exports),)

MAKE_EXPORT: Final = "make_export"
"""A trigger of revision 0027 puts one into the queue for each export that is asked for."""
MOST_TRIES: Final = 5
"""Of a job that somebody asked for."""


def make_export(keeping: Keeping, export: str) -> None:
    """Make the file of one export."""
    keeping.maker.make(uuid.UUID(export))


def give_up_export(keeping: Keeping, export: str, error: Exception) -> None:
    """Say of an export that it failed, and why, as a code."""
    keeping.maker.fail(
        uuid.UUID(export), error.code if isinstance(error, ExportError) else "internal_error"
    )
