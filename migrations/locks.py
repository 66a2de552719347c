"""The locks that a revision begins with, when it changes several tables that are written together."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from service.store import locks

_TRIES: Final = 60
_PAUSE_SECONDS: Final = 1.5


def lock(*tables: str) -> None:
    """Lock the tables against everybody until the revision ends, in the order given: that of who writes.

    While one of them is in use the others are let go again, so what was done before in the revision, which
    may have taken long, stands. Raises OperationalError after two minutes of that.
    """
    statement = sa.text(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")

    def take() -> None:
        with op.get_bind().begin_nested():
            op.get_bind().execute(statement)

    locks.when_free(take, tries=_TRIES, pause_seconds=_PAUSE_SECONDS)
