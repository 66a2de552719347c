"""Let whoever asks for a removal wait, until somebody else confirms it or the time to object is over.

The database sees to it: triggers say until when a removal waits, refuse a tombstone whose removal waits or
was objected to, and refuse to carry out such an erasure. What was asked before waits for nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import locks, row_security

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

_TENANT = sa.text(
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
# In the order in which the service takes them. Neither rows of samples nor of explanations are touched.
_TABLES = ("tenants", "retention_versions", "erasures", "retention_runs", "log_tombstones")
_WHO = "COALESCE(key_id::text, issuer || ' '::text || person)"
_IS_NAMED = (
    "(key_id IS NULL) <> (person IS NULL) AND (key_id IS NULL) = (key_name IS NULL)"
    " AND (person IS NULL) = (issuer IS NULL) AND (person IS NULL OR session_id IS NOT NULL)"
)
_CHECKS = {
    "state": ("state IN ('open', 'done')", "state IN ('open', 'done', 'cancelled')"),
    "finished": (
        "(state = 'done') = (finished_at IS NOT NULL)",
        "(state <> 'open') = (finished_at IS NOT NULL)",
    ),
    "identifier": (
        "(identifier IS NULL) = (state = 'done' OR scope = 'tenant')",
        "(identifier IS NULL) = (state <> 'open' OR scope = 'tenant')",
    ),
}
# 72 hours where the tenant is not known, which only a test has.
_UNTIL = """
    CREATE FUNCTION subtext_objectable_until(tenant uuid) RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT now() + make_interval(hours => COALESCE(
            (SELECT objection_hours FROM tenants WHERE id = tenant), 72
        ))
    $$
"""
_MAY_ERASE = """
    CREATE FUNCTION subtext_may_erase(erasure uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT COALESCE((
            SELECT COALESCE(made.decision = 'confirmed', asked.objectable_until <= now(), true)
            FROM erasures AS asked LEFT JOIN removal_decisions AS made ON made.erasure_id = asked.id
            WHERE asked.id = erasure
        ), false)
    $$
"""
_RETENTION_FROM = """
    CREATE FUNCTION subtext_retention_from(version uuid) RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT CASE made.decision
            WHEN 'objected' THEN NULL
            WHEN 'confirmed' THEN greatest(asked.in_force_from, made.at)
            ELSE greatest(asked.in_force_from, asked.objectable_until)
        END
        FROM retention_versions AS asked LEFT JOIN removal_decisions AS made ON made.version_id = asked.id
        WHERE asked.id = version
    $$
"""
_POSTPONE_ERASURE = """
    CREATE FUNCTION subtext_postpone_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.objectable_until := subtext_objectable_until(NEW.tenant_id);
        RETURN NEW;
    END
    $$
"""
# A version waits when rows may go by it that would stay: it is shorter than what counts, or a later one,
# whose effect depends on what is set until then.
_POSTPONE_VERSION = """
    CREATE FUNCTION subtext_postpone_version() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE counting integer;
    BEGIN
        SELECT period_days INTO counting FROM retention_versions AS one
        WHERE tenant_id = NEW.tenant_id AND (model_id IS NULL OR model_id = NEW.model_id)
            AND subtext_retention_from(id) <= now()
        ORDER BY model_id IS NULL, subtext_retention_from(id) DESC, set_at DESC, id DESC LIMIT 1;
        NEW.objectable_until := NULL;
        IF NEW.period_days < COALESCE(counting, NEW.period_days + 1)
            OR NEW.period_days IS NOT NULL AND NEW.in_force_from > now()
        THEN
            NEW.objectable_until := subtext_objectable_until(NEW.tenant_id);
        END IF;
        RETURN NEW;
    END
    $$
"""
# The lock is of service.retention.holds: who objects waits for those who are removing, and they for him, so
# that an objection that is taken comes before all of a removal.
_DECIDE = """
    CREATE FUNCTION subtext_decide_removal() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE until timestamptz;
    BEGIN
        PERFORM pg_advisory_xact_lock(
            583146022, hashtext(COALESCE(current_setting('subtext.tenant', true), ''))
        );
        IF NEW.erasure_id IS NULL THEN
            SELECT objectable_until INTO until FROM retention_versions WHERE id = NEW.version_id;
        ELSE
            SELECT objectable_until INTO until FROM erasures
            WHERE id = NEW.erasure_id AND state = 'open';
        END IF;
        IF COALESCE(until <= clock_timestamp(), true) THEN
            RAISE EXCEPTION 'there is nothing to confirm or to object to any more'
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
"""
_CARRY_OUT = """
    CREATE FUNCTION subtext_carry_out_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.state = 'open' AND NEW.identifier IS DISTINCT FROM OLD.identifier THEN
            RAISE EXCEPTION 'erasure % is of what was asked', OLD.id USING ERRCODE = 'restrict_violation';
        ELSIF NEW.state = 'cancelled' THEN
            IF OLD.state <> 'open' OR NOT EXISTS (
                SELECT FROM removal_decisions WHERE erasure_id = OLD.id AND decision = 'objected'
            ) THEN
                RAISE EXCEPTION 'nobody objected to erasure %', OLD.id USING ERRCODE = 'restrict_violation';
            END IF;
        ELSIF NOT subtext_may_erase(OLD.id) THEN
            RAISE EXCEPTION 'erasure % waits, or somebody objected to it', OLD.id
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
"""
_BEGIN_RUN = """
    CREATE FUNCTION subtext_begin_retention() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE days integer;
    BEGIN
        SELECT period_days INTO days FROM retention_versions
        WHERE id = NEW.version_id AND subtext_retention_from(id) <= now();
        IF days IS NULL OR NEW.captured_before > now() - make_interval(hours => 24 * days) THEN
            RAISE EXCEPTION 'retention version % does not let rows up to % go now',
                NEW.version_id, NEW.captured_before USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
"""
_BURY = """
    CREATE FUNCTION subtext_bury() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE is_allowed boolean;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(
            583146022, hashtext(COALESCE(current_setting('subtext.tenant', true), ''))
        );
        IF NEW.reason = 'erasure' THEN
            SELECT subtext_may_erase(id) INTO is_allowed FROM erasures
            WHERE id = NEW.authority AND state = 'open';
        ELSE
            SELECT subtext_retention_from(version_id) <= now() INTO is_allowed FROM retention_runs
            WHERE id = NEW.authority AND finished_at IS NULL;
        END IF;
        IF NOT COALESCE(is_allowed, false) THEN
            RAISE EXCEPTION 'no % of id % may be carried out now', NEW.reason, NEW.authority
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
"""
_TRIGGERS = (
    ("waits", "BEFORE INSERT ON erasures", "subtext_postpone_erasure"),
    ("waits", "BEFORE INSERT ON retention_versions", "subtext_postpone_version"),
    ("is_in_time", "BEFORE INSERT ON removal_decisions", "subtext_decide_removal"),
    ("is_carried_out", "BEFORE UPDATE ON erasures", "subtext_carry_out_erasure"),
    ("may_begin", "BEFORE INSERT ON retention_runs", "subtext_begin_retention"),
    ("may_bury", "BEFORE INSERT ON log_tombstones", "subtext_bury"),
)
_FUNCTIONS = (
    _UNTIL, _MAY_ERASE, _RETENTION_FROM, _POSTPONE_ERASURE, _POSTPONE_VERSION, _DECIDE, _CARRY_OUT,
    _BEGIN_RUN, _BURY,
)  # fmt: skip


def upgrade() -> None:
    locks.lock(*_TABLES)
    op.add_column(
        "tenants", sa.Column("objection_hours", sa.Integer(), server_default="72", nullable=False)
    )
    op.create_check_constraint(
        op.f("ck_tenants_objection_hours"), "tenants", "objection_hours BETWEEN 1 AND 336"
    )
    for table in ("retention_versions", "erasures"):
        op.add_column(table, sa.Column("objectable_until", sa.DateTime(timezone=True), nullable=True))
        # Few rows, which are written again for it.
        op.execute(f"ALTER TABLE {table} ADD COLUMN asked_by text GENERATED ALWAYS AS ({_WHO}) STORED")
        op.create_unique_constraint(
            f"uq_{table}_id_tenant_id_asked_by", table, ["id", "tenant_id", "asked_by"]
        )
    for name, (_, condition) in _CHECKS.items():
        _put_check(name, condition)
    _create_decisions()
    for function in _FUNCTIONS:
        op.execute(function)
    for name, when, function in _TRIGGERS:
        op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {function}()")
    op.execute(
        "CREATE TRIGGER removal_decisions_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
        " ON removal_decisions FOR EACH STATEMENT EXECUTE FUNCTION retention_refuse_change()"
    )
    op.execute("ALTER TABLE removal_decisions ENABLE ALWAYS TRIGGER removal_decisions_is_append_only")


def _put_check(name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_erasures_{name}"), "erasures")
    op.create_check_constraint(op.f(f"ck_erasures_{name}"), "erasures", condition)


def _create_decisions() -> None:
    columns = [sa.Column(name, sa.Uuid(), nullable=True) for name in ("erasure_id", "version_id")]
    removals = (("erasure_id", "erasures"), ("version_id", "retention_versions"))
    op.create_table(
        "removal_decisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        *columns,
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), sa.Computed(_WHO, persisted=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(erasure_id, version_id) = 1", name=op.f("ck_removal_decisions_of_one")
        ),
        sa.CheckConstraint(
            "decision IN ('confirmed', 'objected')", name=op.f("ck_removal_decisions_decision")
        ),
        sa.CheckConstraint(
            "decision <> 'confirmed' OR COALESCE(decided_by <> asked_by, false)",
            name=op.f("ck_removal_decisions_other"),
        ),
        sa.CheckConstraint(_IS_NAMED, name=op.f("ck_removal_decisions_named")),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_removal_decisions_key_id_api_keys")
        ),
        *(
            sa.ForeignKeyConstraint(
                [column, "tenant_id", "asked_by"],
                [f"{table}.id", f"{table}.tenant_id", f"{table}.asked_by"],
                name=f"fk_removal_decisions_{column}_{table}",
            )
            for column, table in removals
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removal_decisions")),
        # One decides, and nobody after him.
        *(
            sa.UniqueConstraint(column, name=op.f(f"uq_removal_decisions_{column}"))
            for column, _ in removals
        ),
    )


def downgrade() -> None:
    locks.lock(*_TABLES)
    for name, when, _ in _TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON {when.rpartition(' ')[2]}")
    row_security.take_off("removal_decisions")
    op.drop_table("removal_decisions")  # with its triggers
    for table in ("retention_versions", "erasures"):
        op.drop_constraint(f"uq_{table}_id_tenant_id_asked_by", table)
        op.drop_column(table, "asked_by")
        op.drop_column(table, "objectable_until")
    # An erasure that was objected to, the schema of before cannot tell: it was carried out nowhere.
    op.execute("DELETE FROM erasures WHERE state = 'cancelled'")
    for name, (condition, _) in _CHECKS.items():
        _put_check(name, condition)
    op.drop_column("tenants", "objection_hours")
    for signature in (
        "subtext_bury()", "subtext_begin_retention()", "subtext_carry_out_erasure()",
        "subtext_decide_removal()", "subtext_postpone_version()", "subtext_postpone_erasure()",
        "subtext_retention_from(uuid)", "subtext_may_erase(uuid)", "subtext_objectable_until(uuid)",
    ):  # fmt: skip
        op.execute(f"DROP FUNCTION {signature}")
