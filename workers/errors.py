"""Whose fault a failure is: a store's (wait, give nothing up) or an entry's (retry, then dead-letter).

A store that can never be used as it is (UNUSABLE_STORES) is neither: the process refuses to go on.
"""

import redis
import sqlalchemy.exc

from service.store.engine import UnusableDatabaseError
from subtext_sidecar.contract.counters import DeadLetterReason, RejectReason

STORE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, redis.RedisError)
"""What to catch before asking `is_outage`."""


class UnusableQueueError(ValueError):
    """The server can never be used as it is; the message names the fix."""


UNUSABLE_STORES = (UnusableDatabaseError, UnusableQueueError)
"""Raised by whatever connects: no waiting helps, and no entry is at fault."""

# SQLSTATE classes that PostgreSQL blames on the row: bad data, a broken constraint, over a limit.
_ROWS_FAULT = frozenset({"22", "23", "54"})


def is_outage(error: Exception) -> bool:
    """Tell whether a store cannot work at all now: wait and do the same again.

    True also for a store that answers but refuses everything (read-only after a failover, not
    migrated, no permission): blaming its entries would dead-letter the whole stream. False when
    PostgreSQL refuses a row for what is in it, for then waiting would never end.
    """
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if isinstance(error, sqlalchemy.exc.DataError | sqlalchemy.exc.IntegrityError):
            return False
        # By state and not by class: an index row too long is an OperationalError as well.
        return str(getattr(error.orig, "sqlstate", None))[:2] not in _ROWS_FAULT
    return isinstance(error, sqlalchemy.exc.TimeoutError | redis.RedisError)


class PermanentError(Exception):
    """This entry can never be decoded here. ``reason`` is a bounded label."""

    def __init__(self, reason: RejectReason | DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
