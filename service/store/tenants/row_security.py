"""Row-level security: which rows each role meets. It is enabled and forced, so that owners obey it too.

| role | rows |
|---|---|
| owner | every tenant's; one's in a transaction that names it, as of a service under one login for all |
| writer | every tenant's: a worker is trusted with all of them and names the one that it stores for |
| sequencer | every tenant's of the evidence log, and of no other table |
| keeper | every tenant's; one's in a transaction that names it |
| reader | those of the tenant and models that the transaction names; none where it names no tenant |

It goes on behind every migration, for every table that has a `tenant_id`: no later table can be forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from service.store.tenants.scope import (
    KEY_SETTING,
    MODEL_NAMES_SETTING,
    MODELS_SETTING,
    NAMED,
    SESSION_SETTING,
)

WITHOUT: Final = frozenset({"alembic_version", "tenants"})
"""Tables whose rows are nobody's. Of `tenants` the reader may read the ids alone."""
SHARED: Final = "concept_versions"
"""Rows that are kept by content, once for all: a reader meets those that a model of his tenant uses."""

# Each in a query of its own, which PostgreSQL runs once a statement and not once a row.
_TENANT: Final = f"(SELECT {NAMED})"
_IS_TENANTS: Final = f"tenant_id = {_TENANT}"
_CONFINED: Final = f"COALESCE({_IS_TENANTS}, true)"
_IS_USED: Final = f"EXISTS (SELECT FROM model_concepts WHERE model_concepts.digest = {SHARED}.digest)"
_IS_ASKED_FOR: Final = "{column} = (SELECT decode(NULLIF(current_setting('{setting}', true), ''), 'hex'))"
_BY_DIGEST: Final = {
    "api_keys": ("key_reader", "secret_sha256", KEY_SETTING),
    "sessions": ("session_reader", "token_sha256", SESSION_SETTING),
}
"""Tables of which a row is found before its tenant is known, by whoever has its digest."""


class Roles(NamedTuple):
    """Names of the roles."""

    owner: str
    writer: str
    reader: str
    sequencer: str | None = None
    """None: whoever migrates may not make it."""
    keeper: str | None = None


class _Policy(NamedTuple):
    name: str
    role: str
    using: str
    command: str = "ALL"
    check: str | None = None
    """Of rows that are written; None: as for those that are met."""


def list_wrong(connection: Connection, tables: Sequence[str], roles: Roles) -> list[str]:
    """Return those of the tables whose policies `put_on` would change."""
    return list(_wrong(connection, tables, roles, _there(connection)))


def put_on(connection: Connection, tables: Sequence[str], roles: Roles) -> None:
    """Bring the policies of these tables to what they should be; those that are right are not locked.

    The connection's role must own the tables. A policy whose condition changes needs another name, or a
    migration that takes it off.
    """
    there = _there(connection)
    for table, policies in _wrong(connection, tables, roles, there).items():
        for name in there.get(table, set()) | {policy.name for policy in policies}:
            connection.execute(text(f"DROP POLICY IF EXISTS {name} ON {table}"))
        for policy in policies:
            connection.execute(text(_statement(table, policy)))
        connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"))


def _wrong(
    connection: Connection, tables: Sequence[str], roles: Roles, there: Mapping[str, set[str]]
) -> dict[str, list[_Policy]]:
    columns = _columns(connection, tables)
    wanted = {table: _policies(table, columns[table], roles) for table in sorted(columns)}
    return {
        table: policies
        for table, policies in wanted.items()
        if policies and there.get(table) != {policy.name for policy in policies}
    }


def list_open(connection: Connection) -> list[str]:
    """Return the tables that have a `tenant_id` and no row-level security, by name.

    A partition is met through its table, and by nobody but the owner by itself.
    """
    query = """
        SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
        AND attname = 'tenant_id' AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY relname
    """
    return list(connection.execute(text(query)).scalars())


def _policies(table: str, columns: set[str], roles: Roles) -> list[_Policy]:
    if table == SHARED:
        trusted = [_Policy(f"shared_{name}", role, "true") for name, role in _trusted(roles)]
        return [*trusted, _Policy("shared_reader", roles.reader, _IS_USED)]
    if "tenant_id" not in columns or table in WITHOUT:
        return []
    allowed = _allowed_models(table, columns)
    policies = [
        _Policy("tenant_owner", roles.owner, _CONFINED, check="true"),
        _Policy("tenant_writer", roles.writer, "true"),
        _Policy("tenant_reader", roles.reader, " AND ".join([_IS_TENANTS, *allowed])),
    ]
    if roles.keeper is not None:
        policies.append(_Policy("tenant_keeper", roles.keeper, _CONFINED))
    if table.startswith("log_") and roles.sequencer is not None:
        policies.append(_Policy("tenant_sequencer", roles.sequencer, "true"))
    if table in _BY_DIGEST:
        # Before a key or a session is known its tenant is not. Whoever has its digest finds that one row.
        name, column, setting = _BY_DIGEST[table]
        condition = _IS_ASKED_FOR.format(column=column, setting=setting)
        policies.append(_Policy(name, roles.reader, condition, command="SELECT"))
    return policies


def _trusted(roles: Roles) -> list[tuple[str, str]]:
    keeper = [] if roles.keeper is None else [("keeper", roles.keeper)]
    return [("owner", roles.owner), ("writer", roles.writer), *keeper]


def _allowed_models(table: str, columns: set[str]) -> list[str]:
    """Return the condition by which a caller's models restrict what is met.

    Tables that name no model are read through one that does. So are decoders, which two models may share.
    """
    if table == "decoders":
        return []
    if table == "models":
        return [_is_allowed("id", MODELS_SETTING, "uuid[]")]
    if "model_id" in columns:
        return [_is_allowed("model_id", MODELS_SETTING, "uuid[]")]
    if "model" in columns:  # counts, canaries and configurations name it as it is served
        return [_is_allowed("model", MODEL_NAMES_SETTING, "text[]")]
    return []


def _is_allowed(column: str, setting: str, kind: str) -> str:
    named = f"(SELECT NULLIF(current_setting('{setting}', true), '')::{kind})"
    return f"COALESCE({column} = ANY ({named}::{kind}), true)"


def _statement(table: str, policy: _Policy) -> str:
    check = "" if policy.check is None else f" WITH CHECK ({policy.check})"
    return (
        f"CREATE POLICY {policy.name} ON {table} FOR {policy.command} TO {policy.role}"
        f" USING ({policy.using}){check}"
    )


def _columns(connection: Connection, tables: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    query = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema()"
    )
    for table, column in connection.execute(text(query)):
        found.setdefault(table, set()).add(column)
    is_with_tenants = "tenant_id" in found.get("model_concepts", set())
    return {
        table: found.get(table, set())
        for table in tables
        if table != SHARED or is_with_tenants  # a database may be at an older version
    }


def _there(connection: Connection) -> Mapping[str, set[str]]:
    """Return the names of the policies by table, of tables where they are in force."""
    query = """
        SELECT relname, polname FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid
        WHERE relnamespace = current_schema()::regnamespace AND relrowsecurity AND relforcerowsecurity
    """
    found: dict[str, set[str]] = {}
    for table, policy in connection.execute(text(query)):
        found.setdefault(table, set()).add(policy)
    return found
