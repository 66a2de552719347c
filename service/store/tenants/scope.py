"""Whose rows a transaction is about: run-time settings of PostgreSQL, for the length of the transaction.

Row-level security and the default of every `tenant_id` go by them. They are set with the transaction and
gone with it, so it works through PgBouncer in transaction mode.
"""

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from service.store.engine import UnusableDatabaseError
from service.store.identity import DEFAULT_TENANT, tenant_id

SETTING: Final = "subtext.tenant"
MODELS_SETTING: Final = "subtext.models"
"""Ids of the only models that are met, as an array; '' for all of the tenant."""
MODEL_NAMES_SETTING: Final = "subtext.model_names"
"""The same by name, for what is counted by name."""
KEY_SETTING: Final = "subtext.key"
"""SHA-256 of an API key, in hexadecimal digits: of the key that is looked for."""
SESSION_SETTING: Final = "subtext.session"
"""The same of a session's token."""
OF_ALL_MODELS: Final = text(f"COALESCE(current_setting('{MODELS_SETTING}', true), '') = ''")
"""Whether the transaction meets every model of its tenant: for a query of what names no model itself."""
DEFAULT_ID: Final = tenant_id(DEFAULT_TENANT)
NAMED: Final = f"NULLIF(current_setting('{SETTING}', true), '')::uuid"
"""SQL: the id of the transaction's tenant, NULL where none was named; it becomes '' after a transaction."""
COLUMN_DEFAULT: Final = text(f"COALESCE({NAMED}, '{DEFAULT_ID}'::uuid)")
"""Of every `tenant_id`: whoever names none, as a worker of before tenants, writes for the default tenant.

It is stable, so a column with it is added to a table of any size without touching a row.
"""

_ENTERED: Final = "subtext.entered"

READER: Final = "subtext_reader"
"""The role of whoever answers somebody."""

# A login that is more than a reader, as where one login owns all, is a reader while it answers somebody.
# One that may not be it, as where the roles could not be made, stays what it is.
# From PostgreSQL 16 on whoever makes a role is its member at once and may still not become it.
MAY_BECOME: Final = (
    "CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END"
)
"""SQL: the privilege by which a login may become a role."""
# For the driver as it is: it begins every transaction, and SQLAlchemy's way to it takes twice its time.
_STEP_DOWN: Final = f"""
    SELECT set_config('role', COALESCE((
        SELECT rolname FROM pg_roles WHERE rolname = '{READER}' AND pg_has_role(oid, {MAY_BECOME})
    ), 'none'), true), set_config(%(setting)s, %(value)s, true)
"""  # noqa: S608  # no input
_RESTRICT: Final = text("""
    SELECT set_config(:ids, COALESCE(array_agg(id), '{}')::text, true),
        set_config(:names, CAST(:models AS text[])::text, true)
    FROM models WHERE name = ANY (CAST(:models AS text[]))
""")


class Reach(NamedTuple):
    """Whose rows somebody may read."""

    tenant: uuid.UUID = DEFAULT_ID
    models: Collection[str] | None = None
    """Served names of the only models that he may; None for all of the tenant."""


def set_tenant(session: Session, tenant: uuid.UUID) -> None:
    """Let the session's transaction be about this tenant, until it ends. Rights stay as they are."""
    session.info.pop(_ENTERED, None)
    session.execute(select(func.set_config(SETTING, str(tenant), True)))  # noqa: FBT003  # PostgreSQL's own


def tenant_of(session: Session) -> uuid.UUID:
    """Return whose rows the session's transaction is about: the named tenant, else the default one."""
    return uuid.UUID(str(session.execute(select(COLUMN_DEFAULT)).scalar_one()))


def entered_tenant(session: Session) -> uuid.UUID | None:
    """Return whose rows alone the session meets, None where it did not `enter`, or named another since."""
    found: uuid.UUID | None = session.info.get(_ENTERED)
    return found


@contextmanager
def meanwhile(session: Session, tenant: uuid.UUID) -> Iterator[None]:
    """Let the session's transaction be about another tenant until the block ends."""
    before = session.scalar(select(func.current_setting(SETTING, True)))  # noqa: FBT003  # PostgreSQL's own
    set_tenant(session, tenant)
    yield  # an error ends the transaction, and the setting with it
    session.execute(select(func.set_config(SETTING, before or "", True)))  # noqa: FBT003


def enter(session: Session, reach: Reach) -> None:
    """Let the session's transaction meet, with a reader's rights, what is in reach and nothing else.

    One round trip, and another one where models are restricted. Call it first in the transaction. Raises
    UnusableDatabaseError where models are restricted and nothing would keep the others' rows away.
    """
    role = _step_down(session, SETTING, str(reach.tenant))
    session.info[_ENTERED] = reach.tenant
    if reach.models is not None:
        if role != READER:
            raise UnusableDatabaseError(
                f"this API key is for some models alone, and the login cannot become {READER}, which alone"
                " is restricted to them; run `subtext migrate`, and what it says that an administrator has"
                " to run"
            )
        models = {"ids": MODELS_SETTING, "names": MODEL_NAMES_SETTING, "models": sorted(reach.models)}
        session.execute(_RESTRICT, models)


def look_for_key(session: Session, secret_sha256: bytes) -> None:
    """Let the session's transaction meet, with a reader's rights, the API key with this digest alone."""
    _step_down(session, KEY_SETTING, secret_sha256.hex())


def look_for_session(session: Session, token_sha256: bytes) -> None:
    """Let the session's transaction meet, with a reader's rights, the session with this digest alone."""
    _step_down(session, SESSION_SETTING, token_sha256.hex())


def _step_down(session: Session, setting: str, value: str) -> str:
    """Return the role that the transaction has now; `none` for the login itself."""
    made = session.connection().exec_driver_sql(_STEP_DOWN, {"setting": setting, "value": value})
    return str(made.one()[0])
