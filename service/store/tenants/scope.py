"""Whose rows a transaction is about: a run-time setting of PostgreSQL, for the length of the transaction.

Row-level security and the default of every `tenant_id` go by it. It is set with the transaction and gone
with it, so it works through PgBouncer in transaction mode.
"""

import uuid
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from service.store.identity import DEFAULT_TENANT, tenant_id

SETTING: Final = "subtext.tenant"
DEFAULT_ID: Final = tenant_id(DEFAULT_TENANT)
NAMED: Final = f"NULLIF(current_setting('{SETTING}', true), '')::uuid"
"""SQL: the id of the transaction's tenant, NULL where none was named; it becomes '' after a transaction."""
COLUMN_DEFAULT: Final = text(f"COALESCE({NAMED}, '{DEFAULT_ID}'::uuid)")
"""Of every `tenant_id`: whoever names none, as a worker of before tenants, writes for the default tenant.

It is stable, so a column with it is added to a table of any size without touching a row.
"""


def set_tenant(session: Session, tenant: uuid.UUID) -> None:
    """Let the session's transaction be about this tenant, until it ends."""
    session.execute(select(func.set_config(SETTING, str(tenant), True)))  # noqa: FBT003  # PostgreSQL's own
