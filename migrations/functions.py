"""Functions of the database that a revision changes where they stand."""

import sqlalchemy as sa
from alembic import op


def rewrite(function: str, changes: tuple[tuple[str, str], ...]) -> None:
    """Replace each old part of the function by the new one; its owner and who may call it stay.

    ``function`` is its signature. Raises ValueError where an old part is not in it exactly once.
    """
    query = sa.text("SELECT pg_get_functiondef(to_regprocedure(:name))")
    body: str = op.get_bind().execute(query, {"name": function}).scalar_one()
    for old, new in changes:
        if body.count(old) != 1:
            raise ValueError(f"{function} is not as this migration knows it: it lacks {old}")
        body = body.replace(old, new)
    op.get_bind().exec_driver_sql(body.replace("%", "%%"))
