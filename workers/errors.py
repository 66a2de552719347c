"""The two kinds of failure that a worker knows. Anything else counts as retryable, up to the limit."""

import redis
import sqlalchemy.exc

OUTAGES = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.BusyLoadingError,
)
"""A store is away: nobody's fault but the store's. Wait and do the same again; nothing is given up."""


class PermanentError(Exception):
    """This entry can never be decoded here. ``reason`` is a bounded label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
