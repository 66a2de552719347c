"""Who may do what in the store: five group roles, and what each is granted.

Logins are the operator's: a migration belongs to `OWNER`, each worker to `WRITER`, the service to `READER`,
whoever gives the log's entries their places to `SEQUENCER`, and whoever erases and exports to `KEEPER`.
A role belongs to the whole server, a grant to one database.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from service.store import locks
from service.store.engine import create_migrator, set_in_each_transaction
from service.store.erasure.grants import ERASING
from service.store.tenants import row_security, scope

OWNER: Final = "subtext_owner"
WRITER: Final = "subtext_writer"
READER: Final = scope.READER
SEQUENCER: Final = "subtext_sequencer"
KEEPER: Final = "subtext_keeper"
ROLES: Final = (OWNER, WRITER, READER, SEQUENCER, KEEPER)
_INSERT_ACTOR: Final = "INSERT (key_id, key_name, session_id, issuer, person)"
"""Who asks, in tables of `service.store.base.OfActor`."""
_ASSIGNEE: Final = "assignee_key_id, assignee_key_name, assignee_issuer, assignee_person"

GRANTS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    WRITER: {
        "alembic_version": ["SELECT"],
        # Engines name tenants: their operator's word, by way of the stream.
        "tenants": ["SELECT", "INSERT (id, name)"],
        "models": ["SELECT", "INSERT"],
        "decoders": [
            "SELECT",
            "INSERT",
            "UPDATE (verified_above, candidates)",
            "UPDATE (log_salt, log_trail)",
        ],
        "samples": ["SELECT", "INSERT"],
        "request_names": ["SELECT", "INSERT"],
        "explanations": ["SELECT", "INSERT"],
        "concept_matches": ["SELECT", "INSERT"],
        "concept_versions": ["SELECT", "INSERT"],
        "model_concepts": ["SELECT", "INSERT"],
        "flags": [
            "SELECT",
            "INSERT",
            "UPDATE (positions_matched, positions_verified)",
            "UPDATE (first_captured_at, last_captured_at, updated_at)",
            "UPDATE (log_salt, log_trail)",
        ],
        "incidents": [
            "SELECT",
            "INSERT",
            "UPDATE (severity, state, version, labels, anomaly_p_value)",
            "UPDATE (first_captured_at, last_captured_at, updated_at)",
        ],
        "incident_events": ["SELECT", "INSERT"],
        "anomaly_windows": ["SELECT", "INSERT"],
        "request_tests": ["SELECT", "INSERT"],
        "webhook_messages": ["SELECT", "INSERT"],
        "webhook_deliveries": [],
        "coverage_minutes": ["SELECT", "INSERT", "UPDATE (count)"],
        "canary_readings": ["SELECT", "INSERT"],
        "canary_flags": ["SELECT", "INSERT"],
        "canary_runs": ["SELECT", "INSERT"],
        "configuration_versions": ["SELECT", "INSERT"],
        "configuration_contents": ["SELECT", "INSERT"],
        "configuration_periods": [
            "SELECT",
            "INSERT",
            "UPDATE (last_seen_at, ended_at)",
            "UPDATE (log_salt, log_trail)",
        ],
        "api_keys": [],
        "access_log": [],
        "access_subjects": [],
        "retention_versions": [],
        "retention_runs": [],
        "deletion_certificates": [],
        "legal_holds": [],
        "legal_hold_lifts": [],
        "removal_decisions": [],
        "sessions": [],
        "erasures": [],
        # Neither a time nor a place of its own choice.
        "log_pending": ["INSERT (kind, commitments)"],
        "log_leaves": [],
        "log_nodes": [],
        "log_checkpoints": [],
        # It seals what it stores, and cannot read back what it or others sealed.
        "vector_keys": ["SELECT", "INSERT"],
        "vectors": ["INSERT"],
        "log_tombstones": [],
        "exports": [],
    },
    READER: {
        "alembic_version": ["SELECT"],
        # The service works for all and knows none by name.
        "tenants": ["SELECT (id, objection_hours)"],
        "models": ["SELECT"],
        "decoders": ["SELECT"],
        "samples": ["SELECT"],
        "request_names": ["SELECT"],
        "explanations": ["SELECT"],
        "concept_matches": ["SELECT"],
        "concept_versions": ["SELECT"],
        "model_concepts": ["SELECT"],
        "flags": ["SELECT"],
        # Triage and webhooks: whoever takes the service over changes no evidence and no event.
        "incidents": ["SELECT", "UPDATE (state, version, labels, updated_at)", f"UPDATE ({_ASSIGNEE})"],
        # Without a time of its own choice, and without findings, which are a worker's.
        "incident_events": [
            "SELECT",
            "INSERT (id, incident_id, version, kind, key_id, key_name, from_state, to_state)",
            "INSERT (severity, reason, note, labels)",
            "INSERT (log_salt)",
            "INSERT (session_id, issuer, person)",
            f"INSERT ({_ASSIGNEE})",
            "INSERT (proposed_state, proposal)",
        ],
        "webhook_messages": ["SELECT", "INSERT (event_id)"],
        "anomaly_windows": ["SELECT"],
        "request_tests": ["SELECT"],
        "webhook_deliveries": [
            "SELECT",
            "INSERT",
            "UPDATE (state, attempts, next_attempt_at, last_error, settled_at)",
        ],
        "coverage_minutes": ["SELECT"],
        "canary_readings": ["SELECT"],
        "canary_flags": ["SELECT"],
        # The canaries' runner has this login too. Without a time of its own choice.
        "canary_runs": ["SELECT", "INSERT (id, model, concept, kind, outcome, lost_at)"],
        "configuration_versions": ["SELECT"],
        "configuration_contents": ["SELECT"],
        "configuration_periods": ["SELECT"],
        # Keys are made, rotated and revoked by an owner: whoever takes the service over must not make one.
        # READER_FUNCTIONS make one for whoever shows the secret of a key that may, and revoke one.
        "api_keys": ["SELECT", "UPDATE (last_used_at)"],
        # Without a time, an order or a login of its own choice: the database says those.
        "access_log": [
            "SELECT",
            "INSERT (id, tenant_id, key_id, key_name, action, operation, subject_kind, subject_ids)",
            "INSERT (subjects_total, capture_ids, captures_total, details, purpose, purpose_note)",
            "INSERT (os_user, status, result, suppressed, log_salt)",
            "INSERT (session_id, issuer, person)",
        ],
        # Which triggers of the access log write.
        "access_subjects": ["SELECT"],
        # People sign in and out here. What a session may do, and until when at most, is never changed.
        "sessions": [
            "SELECT",
            "INSERT (id, token_sha256, login_sha256, issuer, person, display_name, key_id)",
            "INSERT (roles, scopes, models, last_seen_at, idle_expires_at, expires_at)",
            "INSERT (revoked_at, ended)",
            "UPDATE (last_seen_at, idle_expires_at, revoked_at, ended)",
        ],
        "retention_runs": ["SELECT"],
        "deletion_certificates": ["SELECT"],
        # Nor is a period set for the past, or outside of its class: constraints see to it.
        "retention_versions": [
            "SELECT",
            "INSERT (id, model_id, retention_class, floor_days, ceiling_days, period_days, in_force_from)",
            "INSERT (records, reason, log_salt)",
            _INSERT_ACTOR,
        ],
        # Without a time of its own choice. The constraints see to the two that a lift takes.
        "legal_holds": [
            "SELECT",
            "INSERT (id, model_id, captured_from, captured_to, request_names, capture_id, trace_id)",
            "INSERT (concept, subject, reason, reference, log_salt)",
            _INSERT_ACTOR,
        ],
        "legal_hold_lifts": [
            "SELECT",
            "INSERT (id, hold_id, step, step_before, reason, log_salt)",
            _INSERT_ACTOR,
        ],
        # Without a time of its own choice. Constraints see to the second identity, a trigger to the time.
        "removal_decisions": [
            "SELECT",
            "INSERT (id, erasure_id, version_id, decision, asked_by, reason, log_salt)",
            _INSERT_ACTOR,
        ],
        # What it is about is told to nobody; without a time or a state of its own choice.
        "erasures": [
            "SELECT (id, tenant_id, asked_at, due_at, scope, commitment)",
            "SELECT (key_id, key_name, session_id, issuer, person)",
            "SELECT (state, counts, held, clean_since, finished_at, objectable_until, asked_by)",
            "INSERT (id, scope, identifier, commitment)",
            _INSERT_ACTOR,
        ],
        "log_pending": ["SELECT", "INSERT (kind, commitments)"],
        "log_leaves": ["SELECT"],
        "log_nodes": ["SELECT"],
        "log_checkpoints": ["SELECT"],
        "vector_keys": [],
        "vectors": [],
        "log_tombstones": ["SELECT"],
        # Asking for one. What becomes of it, the keeper says.
        "exports": [
            "SELECT",
            "INSERT (id, kinds, of_model, models, period_start, period_end, with_text, earlier_size)",
            "INSERT (format)",
            "INSERT (purpose, purpose_note)",
            _INSERT_ACTOR,
        ],
    },
}
"""By role and table. An audit's rows are never changed by whom they are written, and deleted by nobody."""

SEQUENCER_GRANTS: Final[Mapping[str, Sequence[str]]] = {
    "alembic_version": ["SELECT"],
    "log_pending": ["SELECT", "DELETE"],
    "log_leaves": ["SELECT", "INSERT"],
    "log_nodes": ["SELECT", "INSERT"],
    "log_checkpoints": ["SELECT", "INSERT"],
}
"""By table: it reads nothing but commitments, and has nothing of any other table."""

_ERASED: Final = (
    "samples",
    "request_names",
    "explanations",
    "concept_matches",
    "flags",
    "incidents",
    "incident_events",
    "webhook_messages",
    "webhook_deliveries",
    "request_tests",
    "canary_readings",
    "canary_flags",
    "canary_runs",
)
KEEPER_GRANTS: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(GRANTS[READER], ("SELECT",)),
    **dict.fromkeys(_ERASED, ("SELECT", "DELETE")),
    # By what somebody is known is nobody's business but the service's.
    "api_keys": [],
    "sessions": [],
    "vectors": ["SELECT", "DELETE"],
    "vector_keys": [],
    # Not who asked for what.
    "exports": [
        "SELECT",
        "UPDATE (state, attempts, finished_at, expires_at)",
        "UPDATE (bytes, sha256, rows, withheld, problem)",
    ],
    # Without a beginning of its own choice.
    "retention_runs": [
        "SELECT",
        "INSERT (id, model_id, version_id, captured_before, checkpoint_size, removed)",
        "INSERT (records, first_captured_at, last_captured_at, finished_at)",
        "UPDATE (removed, first_captured_at, last_captured_at, finished_at)",
    ],
    "deletion_certificates": ["SELECT", "INSERT"],
    **ERASING,
}
"""By table: it reads what there is and deletes what retention and erasure end; it adds none of traffic."""

KEEPER_FUNCTIONS: Final = (
    "subtext_make_day(date)",
    "subtext_drop_partitions(text)",
    "subtext_list_empty(timestamptz)",
    "subtext_analyze_parent(text)",
)
"""What it may do with the owner's rights: make a day, list and drop empty ones, analyse the whole."""
READER_FUNCTIONS: Final = (
    "subtext_find_words(text, timestamptz, timestamptz, timestamptz, uuid, integer)",
    "subtext_make_key(text, uuid, text, bytea, text[], text, text[], timestamptz)",
    "subtext_revoke_key(uuid)",
)
"""What the service may do with the owner's rights: see migrations 0037 and 0040."""
OWNER_FUNCTIONS: Final = ("access_log_add_subjects()", "access_log_remove_subjects()")
"""What triggers alone do with the owner's rights: see migration 0054."""
_CLOSE: Final = "subtext_close_partition(regclass)"

_OPTIONAL: Final = {SEQUENCER: SEQUENCER_GRANTS, KEEPER: KEEPER_GRANTS}
"""Roles of later versions: a store whose migrating login may not make one works on without it."""
QUEUE_SCHEMA: Final = "subtext_jobs"
"""Of the queue of jobs, whose tables are nobody's but the keeper's."""
_DEFAULTS: Final = {WRITER: "SELECT, INSERT", READER: "SELECT"}
"""Of tables that a later version adds: enough to begin with, until `apply` grants what they need."""
_NOT_ALLOWED: Final = "42501"  # SQLSTATE insufficient_privilege
_IS_OPEN: Final = """(
    NOT child.relrowsecurity OR child.relforcerowsecurity OR EXISTS (
        SELECT FROM aclexplode(child.relacl) WHERE grantee NOT IN (child.relowner, 0)
    )
)"""
"""Of a partition `child`: that somebody but the owner may meet it by itself."""
_LOCK: Final = 5_873_146_022
_TRIES: Final = 60
_PAUSE_SECONDS: Final = 1.5


class Advice(NamedTuple):
    """What the login that migrates may not do, and what an administrator has to run instead."""

    problem: str
    statements: str

    def __str__(self) -> str:
        """Return it as told to the operator."""
        return (
            f"the store has no roles of its own yet: {self.problem}\n"
            "Everything works on, under the one login that owns the tables. For separate logins let an"
            f" administrator run this once, then run `subtext migrate` again:\n{self.statements}"
        )


def apply(url: str) -> Advice | None:
    """Create the roles unless they are there, and grant each exactly what it needs.

    1. Roles, and the migrating login a member of the owner.
    2. Every table of the schema belongs to the owner.
    3. Grants, where more was granted before too, and the defaults of later tables.
    4. Row-level security, see `service.store.tenants.row_security`.

    It is one transaction, so that nobody at work loses a grant meanwhile, and safe to repeat. Returns what
    to do where the login is not allowed to, as on managed servers; nothing has changed then.
    """
    engine = create_migrator(url)
    set_in_each_transaction(engine, {"lock_timeout": locks.WAIT, "statement_timeout": "60s"})
    try:
        _apply_when_unlocked(engine)
    except _NotAllowedError as error:
        return _advice(engine, str(error))
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
            raise
        return _advice(engine, str(error.orig))
    else:
        # A store of before has the others, and an upgrade must not take from them what they need by now.
        with engine.connect() as connection:
            missing = [role for role in _OPTIONAL if not _is_known(connection, role)]
        return _advice(engine, f"this login may not create {' and '.join(missing)}") if missing else None
    finally:
        engine.dispose()


class _NotAllowedError(Exception):
    """The login may not do what the roles need; the message says what."""


def _apply_when_unlocked(engine: Engine) -> None:
    """Apply; try again while somebody's long statement keeps a table from changing its owner."""

    def attempt() -> None:
        with engine.begin() as connection:
            _apply(connection)

    locks.when_free(attempt, tries=_TRIES, pause_seconds=_PAUSE_SECONDS)


def _apply(connection: Connection) -> None:
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    schema = _quoted(connection, connection.execute(text("SELECT current_schema()")).scalar_one())
    for role in (OWNER, WRITER, READER):
        _create(connection, role)
    optional = [role for role in _OPTIONAL if _can_create(connection, role)]
    roles = (OWNER, WRITER, READER, *optional)
    # A login that made a role may hand it on, and still does not have what it has.
    if not _is(connection, f"pg_has_role('{OWNER}', 'USAGE')"):
        connection.execute(text(f"GRANT {OWNER} TO CURRENT_USER"))
    _let_step_down(connection, connection.execute(text("SELECT current_user")).scalar_one())
    database = _quoted(connection, connection.execute(text("SELECT current_database()")).scalar_one())
    connection.execute(text(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(roles)}"))
    connection.execute(text(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"))
    connection.execute(text(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {OWNER}"))
    connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(roles[1:])}"))
    # PostgreSQL only warns about a grant that it did not give.
    if not _is(connection, f"has_schema_privilege('{OWNER}', current_schema(), 'CREATE')"):
        raise _NotAllowedError(f"only the owner of schema {schema} can let {OWNER} have tables in it")
    tables = _tables(connection)
    there = {role: role if role in roles else None for role in _OPTIONAL}
    met = row_security.Roles(OWNER, WRITER, READER, there[SEQUENCER], there[KEEPER])
    _lock_what_changes(connection, schema, tables, met)
    owners = tables | _partitions(connection)
    _move_tables(connection, schema, {table: owner for table, owner in owners.items() if owner != OWNER})
    _keep_partitions_closed(connection, keeper=KEEPER if KEEPER in roles else None)
    _let_triggers_call(connection)
    _let_reader_call(connection)
    columns = _columns(connection)
    granted = {**GRANTS, **_OPTIONAL}
    for role in roles[1:]:
        for table in tables:
            connection.execute(text(f"REVOKE ALL ON {schema}.{table} FROM {role}"))
            for privilege in granted[role].get(table, ()):
                if not _named(privilege) <= columns[table]:
                    continue  # the database is at an older version
                connection.execute(text(f"GRANT {privilege} ON {schema}.{table} TO {role}"))
    for role, default in _DEFAULTS.items():
        for creator in ("CURRENT_USER", OWNER):
            connection.execute(
                text(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {creator} IN SCHEMA {schema}"
                    f" GRANT {default} ON TABLES TO {role}"
                )
            )
    row_security.put_on(connection, list(tables), met)
    _grant_queue(connection)


def _grant_queue(connection: Connection) -> None:
    """Let the keeper, where that role is, work on the queue, note what became of exports, and step down."""
    has_queue = _is(connection, f"EXISTS (SELECT FROM pg_namespace WHERE nspname = '{QUEUE_SCHEMA}')")
    if not (has_queue and _is_known(connection, KEEPER)):
        return
    rights = "SELECT, INSERT, UPDATE, DELETE"
    connection.execute(text(f"GRANT USAGE ON SCHEMA {QUEUE_SCHEMA} TO {KEEPER}"))
    connection.execute(text(f"GRANT {rights} ON ALL TABLES IN SCHEMA {QUEUE_SCHEMA} TO {KEEPER}"))
    connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {QUEUE_SCHEMA} TO {KEEPER}"))
    _let_keeper_step_down(connection)


def _let_keeper_step_down(connection: Connection) -> None:
    """Let the keeper become the reader while it makes an export, and have none of its rights before.

    Else it could begin sessions, place holds, and read by what a key is known.
    """
    is_by_grant = _is(connection, "current_setting('server_version_num')::int >= 160000")
    apart = f"GRANT {READER} TO {KEEPER} WITH INHERIT FALSE, SET TRUE"
    statements = (
        [apart] if is_by_grant else [f"ALTER ROLE {KEEPER} NOINHERIT", f"GRANT {READER} TO {KEEPER}"]
    )
    with _refusable(connection):
        for statement in statements:
            connection.execute(text(statement))


def _lock_what_changes(
    connection: Connection, schema: str, tables: Mapping[str, str], met: row_security.Roles
) -> None:
    """Lock at once, and for a moment, the tables whose owner, policies or partitions will change.

    One after the other would keep the first locked while it waits for the last. With a table its partitions
    are locked, behind it, as by whoever reads or writes.
    """
    query = f"""
        SELECT DISTINCT parent.relname FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
        WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace
        AND (child.relowner <> '{OWNER}'::regrole OR {_IS_OPEN})
    """  # noqa: S608
    changing = {
        *(table for table, owner in tables.items() if owner != OWNER),
        *row_security.list_wrong(connection, list(tables), met),
        *connection.execute(text(query)).scalars(),
    }
    if changing:
        named = ", ".join(f"{schema}.{table}" for table in tables if table in changing)
        connection.execute(text(f"LOCK TABLE {named} IN ACCESS EXCLUSIVE MODE"))


def _move_tables(connection: Connection, schema: str, owners: Mapping[str, str]) -> None:
    """Give the owner these tables, by table; its former owner keeps its rights as a member.

    Worker and service may still share the login that owned them.
    """
    for login in sorted(set(owners.values())):
        if not _is(connection, "pg_has_role(:login, :role, 'USAGE')", login=login, role=OWNER):
            connection.execute(text(f"GRANT {OWNER} TO {_quoted(connection, login)}"))
        _let_step_down(connection, login)
    for table in owners:
        connection.execute(text(f"ALTER TABLE {schema}.{table} OWNER TO {OWNER}"))


def _partitions(connection: Connection) -> dict[str, str]:
    """Return the owners of the partitions of our tables: what owns a table does not own its partitions."""
    query = """
        SELECT child.relname, child.relowner::regrole::text FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
        WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace
    """
    return dict(map(tuple, connection.execute(text(query))))


def _keep_partitions_closed(connection: Connection, keeper: str | None) -> None:
    """Let nobody meet a partition by itself, and let the keeper make and drop days by functions alone."""
    # The others where the database is at an older version.
    there = [
        function
        for function in (_CLOSE, *KEEPER_FUNCTIONS)
        if _is(connection, "to_regprocedure(:name) IS NOT NULL", name=function)
    ]
    if _CLOSE not in there:
        return
    for function in there:
        connection.execute(text(f"ALTER FUNCTION {function} OWNER TO {OWNER}"))
        connection.execute(text(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"))
        if keeper is not None and function != _CLOSE:
            connection.execute(text(f"GRANT EXECUTE ON FUNCTION {function} TO {keeper}"))
    granted_or_open = f"""
        SELECT subtext_close_partition(child.oid) FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
        WHERE parent.relkind = 'p' AND parent.relnamespace = current_schema()::regnamespace AND {_IS_OPEN}
    """  # noqa: S608
    connection.execute(text(granted_or_open))


def _let_triggers_call(connection: Connection) -> None:
    """Let nobody make a trigger of his own that works with the owner's rights."""
    for function in OWNER_FUNCTIONS:
        _own_if_there(connection, function)


def _let_reader_call(connection: Connection) -> None:
    """Let the service, and nobody else, call what works with the owner's rights for it."""
    for function in READER_FUNCTIONS:
        if _own_if_there(connection, function):
            connection.execute(text(f"GRANT EXECUTE ON FUNCTION {function} TO {READER}"))


def _own_if_there(connection: Connection, function: str) -> bool:
    """Give the owner the function, which nobody else may call; False in a database of an older version."""
    if not _is(connection, "to_regprocedure(:name) IS NOT NULL", name=function):
        return False
    connection.execute(text(f"ALTER FUNCTION {function} OWNER TO {OWNER}"))
    connection.execute(text(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"))
    return True


def _create(connection: Connection, role: str) -> None:
    """Create the role; another database of the same server may have it made already, or just now."""
    connection.execute(
        text(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
            f" THEN CREATE ROLE {role} NOLOGIN; END IF;"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    )


def _can_create(connection: Connection, role: str) -> bool:
    """Create the role if this login may, and tell whether it is there."""
    with _refusable(connection):
        _create(connection, role)
    return _is_known(connection, role)


def _let_step_down(connection: Connection, login: str) -> None:
    """Let a login that owns all become the reader while it answers somebody, if this login may say so."""
    if _is(connection, f"pg_has_role(:login, :role, {scope.MAY_BECOME})", login=login, role=READER):
        return
    with _refusable(connection):
        connection.execute(text(f"GRANT {READER} TO {_quoted(connection, login)}"))


@contextmanager
def _refusable(connection: Connection) -> Iterator[None]:
    """Undo the block, and go on, where the login is not allowed to do what it does."""
    try:
        with connection.begin_nested():
            yield
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
            raise


def _tables(connection: Connection) -> dict[str, str]:
    """Return the owners of those tables of ours that are there: a database may be at an older version.

    In the order in which workers take their locks: in another, one of them and whoever applies this could
    each wait for what the other has.
    """
    query = "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = current_schema()"
    found = dict(map(tuple, connection.execute(text(query))))
    return {table: found[table] for table in GRANTS[WRITER] if table in found}


def _columns(connection: Connection) -> dict[str, set[str]]:
    """Return the columns that there are, by table."""
    found = connection.execute(
        text(
            "SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped"
        )
    )
    columns: dict[str, set[str]] = {}
    for table, column in found:
        columns.setdefault(table, set()).add(column)
    return columns


def _named(privilege: str) -> set[str]:
    """Return the columns that a privilege is for; none when it is for the whole table."""
    return set(privilege.partition("(")[2].rstrip(")").replace(" ", "").split(",")) - {""}


def _advice(engine: Engine, problem: str) -> Advice:
    with engine.connect() as connection:
        login = _quoted(connection, connection.execute(text("SELECT current_user")).scalar_one())
        schema = _quoted(connection, connection.execute(text("SELECT current_schema()")).scalar_one())
        missing = [role for role in ROLES if not _is_known(connection, role)]
    statements = [
        *(f"CREATE ROLE {role} NOLOGIN;" for role in missing),
        f"GRANT {OWNER} TO {login};",
        f"GRANT {READER} TO {login};",
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {OWNER};",
        f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(ROLES[1:])};",
    ]
    return Advice(problem, "\n".join(f"  {statement}" for statement in statements))


def _is_known(connection: Connection, role: str) -> bool:
    return _is(connection, f"EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')")


def _is(connection: Connection, condition: str, **values: str) -> bool:
    return bool(connection.execute(text(f"SELECT {condition}"), values).scalar_one())


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)
