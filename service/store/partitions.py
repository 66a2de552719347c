"""The days of the tables that grow with traffic: made ahead, listed, and dropped whole.

A partition `TABLE_YYYYMMDD` holds what was captured on that day, in UTC. `TABLE_before` holds all from
before there were days, `TABLE_default` what lies in no day. Nobody waits for a day to be made: a row
without one lands in the default partition. Each day is made, or dropped, in a transaction of its own that
waits half a second for its locks and no longer, so that whoever writes meanwhile waits no longer either.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from service.store import locks

TABLES: Final = ("samples", "request_names", "explanations", "concept_matches")
"""In the order in which they are written. No constraint binds one to another, see decision 28."""
DAYS_AHEAD: Final = 7
EMPTY_FOR: Final = dt.timedelta(days=30)
"""How long a day stays, though nothing is in it: an old stream, or dead letters, may be delivered again."""
_SUFFIX: Final = "%Y%m%d"
_TRIES: Final = 40
_PAUSE_SECONDS: Final = 1.5

# The end stands in the catalogue as text alone.
_LIST: Final = r"""
    SELECT parent.relname, child.relname,
        (substring(pg_get_expr(child.relpartbound, child.oid) FROM 'FROM \(''([^'']+)''\)'))::timestamptz,
        (substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''([^'']+)''\)'))::timestamptz,
        pg_total_relation_size(child.oid), greatest(child.reltuples, 0)::bigint
    FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace
    ORDER BY 1, 4 NULLS LAST, 2
"""
_DEFAULT_BYTES: Final = """
    SELECT parent.relname, pg_relation_size(inhrelid) FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace
    AND child.relname = parent.relname || '_default'
"""

_ANALYZED_EVERY: Final = dt.timedelta(days=7)
"""At least: times of all days move on while no row is more."""
_ANALYZE_AT_MOST: Final = "30min"
# By what PostgreSQL knows of each day by now, and of the whole since it was analysed. A tenth more or less
# is what autovacuum analyses a table for.
_TO_ANALYZE: Final = """
    SELECT parent.relname FROM pg_class AS parent
    JOIN pg_stat_user_tables AS known ON known.relid = parent.oid
    JOIN LATERAL (
        SELECT sum(greatest(child.reltuples, 0)) AS rows FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = parent.oid
    ) AS days ON true
    WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace AND days.rows > 0
    AND (
        known.last_analyze IS NULL OR known.last_analyze < :before
        OR abs(days.rows - greatest(parent.reltuples, 0)) > days.rows / 10
    )
    ORDER BY parent.relname
"""


class Partition(NamedTuple):
    """One partition of one table."""

    table: str
    name: str
    start: dt.datetime | None
    """Inclusive; None: it begins with the first row, or it is the default partition."""
    end: dt.datetime | None
    """Exclusive; None for the default partition."""
    size_bytes: int
    """With its indexes."""
    rows: int
    """As of its last ANALYZE: an estimate."""

    @property
    def is_default(self) -> bool:
        """Whether it holds what lies in no day."""
        return self.end is None


class Made(NamedTuple):
    """What became of the days that were to be there."""

    made: list[dt.date]
    occupied: list[dt.date]
    """Those whose rows lie in a default partition already: they stay there."""


class PartitionLockedError(RuntimeError):
    """Somebody reads for so long that no day could be made or dropped; try again later."""


def list_partitions(connection: Connection) -> list[Partition]:
    """Return every partition, by table, the oldest first and the default one last."""
    connection.execute(text("SET LOCAL timezone = 'UTC'"))
    return [Partition(*row) for row in connection.execute(text(_LIST))]


def count_days_ahead(connection: Connection, today: dt.date) -> int:
    """Return for how many days from tomorrow on, without a gap, every table has a partition."""
    found = list_partitions(connection)
    days = 0
    while days <= DAYS_AHEAD and all(
        _covers(found, table, today + dt.timedelta(days=days + 1)) for table in TABLES
    ):
        days += 1
    return days


def default_bytes(connection: Connection) -> dict[str, int]:
    """Return by table what its default partition takes; 0 when no row is, or was lately, in it."""
    return dict(map(tuple, connection.execute(text(_DEFAULT_BYTES))))


def make_ahead(engine: Engine, today: dt.date, days: int = DAYS_AHEAD) -> Made:
    """Make today and so many days after it, unless they are there.

    The login must be the keeper's or own the tables. Raises PartitionLockedError.
    """
    made = Made([], [])
    for day in _days(today, days):
        outcome = _call(engine, "SELECT subtext_make_day(:argument)", day)
        if outcome == "made":
            made.made.append(day)
        elif outcome == "occupied":
            made.occupied.append(day)
    return made


def drop_day(engine: Engine, day: dt.date) -> int:
    """Drop the day's partition of every table; return how many there were, 0 when it is gone already.

    Raises PartitionLockedError, and sqlalchemy.exc.DBAPIError for a day that is not over, or that has rows:
    these only the owner of the tables drops, who has looked at holds and buried what the log has of them.
    """
    return _drop(engine, day.strftime(_SUFFIX))


def drop_empty(engine: Engine, now: dt.datetime) -> list[str]:
    """Drop each day of which no table has a row any more, but for the last `EMPTY_FOR`; return which.

    `before` is all from before there were days. Raises as `drop_day`.
    """
    with engine.begin() as connection:
        query = text("SELECT subtext_list_empty(:ended_before)")
        empty = list(connection.execute(query, {"ended_before": now - EMPTY_FOR}).scalars())
    for suffix in empty:
        _drop(engine, suffix)
    return empty


def _drop(engine: Engine, suffix: str) -> int:
    return int(str(_call(engine, "SELECT subtext_drop_partitions(:argument)", suffix)))


def analyze_parents(engine: Engine, now: dt.datetime) -> list[str]:
    """Let the planner know what the tables hold as a whole, where that has changed; return which ones.

    Autovacuum looks at each day and never at the whole. Before PostgreSQL 18 every day is looked at again,
    too, and until that ends no day can be made or dropped. The login must be the keeper's, or the owner's.
    """
    with engine.begin() as connection:
        due = list(connection.execute(text(_TO_ANALYZE), {"before": now - _ANALYZED_EVERY}).scalars())
    for table in due:
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = '{_ANALYZE_AT_MOST}'"))
            connection.execute(text("SELECT subtext_analyze_parent(:table)"), {"table": table})
    return due


def _days(today: dt.date, days: int) -> Iterable[dt.date]:
    return (today + dt.timedelta(days=number) for number in range(days + 1))


def _covers(found: Iterable[Partition], table: str, day: dt.date) -> bool:
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    return any(
        one.table == table and one.end is not None and (one.start or noon) <= noon < one.end
        for one in found
    )


def _call(engine: Engine, statement: str, argument: dt.date | str) -> object:
    """Run it in a transaction of its own, again and again while somebody's reading is in its way."""

    def attempt() -> object:
        with engine.begin() as connection:
            return connection.execute(text(statement), {"argument": argument}).scalar_one()

    try:
        return locks.when_free(attempt, tries=_TRIES, pause_seconds=_PAUSE_SECONDS)
    except OperationalError as error:
        if not locks.is_locked(error):
            raise
        raise PartitionLockedError(
            f"somebody has read for over {_TRIES * _PAUSE_SECONDS:.0f} s; nothing is lost, try again later"
        ) from error
