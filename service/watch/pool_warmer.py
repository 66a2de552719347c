"""Connections to PostgreSQL that are warm before a request needs them."""

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.store.engine import UnusableDatabaseError
from service.store.read.warm_up import look_up_nothing

if TYPE_CHECKING:
    from sqlalchemy.pool import QueuePool

_log: Final = structlog.get_logger(__name__)
_WARM: Final = "subtext_warm"
_KEPT_WARM: Final = 2
"""Opened where nobody has opened as many yet."""
_PAUSE_SECONDS: Final = 1.0
"""After one was opened: whoever opened it gives it back first."""


class PoolWarmer:
    """Warms the pool's connections after one was opened, in a thread of its own.

    It holds no more than half of the pool, and begins with none while half of it is in use. Where it fails,
    a request warms its connection itself, as ever.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_due = threading.Event()
        self._is_due.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool-warmer", daemon=True)
        event.listen(engine, "connect", self._hear)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after the connection that is being warmed."""
        self._stop.set()
        self._is_due.set()
        self._thread.join(timeout=5)

    def warm(self) -> int:
        """Warm what is cold among the connections that nobody uses; return how many that were."""
        pool = cast("QueuePool", self._engine.pool)
        at_most = pool.size() // 2
        warmed = 0
        try:
            with ExitStack() as held:  # or the pool would give the same one again
                for _ in range(min(max(_KEPT_WARM, pool.checkedin()), at_most)):
                    if self._stop.is_set() or pool.checkedout() >= at_most:
                        break
                    connection = held.enter_context(self._engine.connect())
                    if _WARM not in connection.info:
                        with Session(connection) as session:
                            look_up_nothing(session)
                        connection.info[_WARM] = True
                        warmed += 1
        except (SQLAlchemyError, UnusableDatabaseError) as error:
            _log.debug("connection_not_warmed", error_type=type(error).__name__)
        return warmed

    def _hear(self, *_opened: Any) -> None:
        self._is_due.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._is_due.clear()
            self.warm()
            self._is_due.wait()
            self._stop.wait(_PAUSE_SECONDS)
