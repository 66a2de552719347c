"""Let the access log, canaries' rows and webhook messages have periods of retention of their own.

1. A period is of readings, as those of before, or of records of one kind. Triggers compare it with those of
   its kind, and let a run remove no other.
2. Entries of the access log may be deleted by a run of their own and up to its time; a trigger sees to it.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import functions

revision = "0044"
down_revision = "0041"
branch_labels = None
depends_on = None

_LOCK: Final = "LOCK TABLE retention_versions, retention_runs, access_log IN ACCESS EXCLUSIVE MODE"
_RECORDS: Final = "records IN ('access_log', 'canaries', 'webhooks')"
_SAME: Final = "records IS NOT DISTINCT FROM NEW.records"
_IN_LOG: Final = "COALESCE(records, 'access_log') = 'access_log'"
_RETAINS: Final = "TG_OP = 'DELETE' AND current_setting('subtext.retaining', true) <> ''"
# By function: how it was before, and how it is now.
_CHANGES: Final = {
    "subtext_postpone_version()": (
        (
            "WHERE tenant_id = NEW.tenant_id AND (",
            f"WHERE tenant_id = NEW.tenant_id AND {_SAME} AND (",
        ),
    ),
    "subtext_begin_retention()": (
        (
            "WHERE id = NEW.version_id AND subtext_retention_from(id) <= now();",
            f"WHERE id = NEW.version_id AND {_SAME} AND subtext_retention_from(id) <= now();",
        ),
    ),
    # Neither canaries nor messages have entries of the log.
    "subtext_bury()": (
        (
            "WHERE id = NEW.authority AND finished_at IS NULL;",
            f"WHERE id = NEW.authority AND finished_at IS NULL AND {_IN_LOG};",
        ),
    ),
    "access_log_refuse_change()": (
        (
            "IF TG_OP = 'UPDATE' AND current_setting('subtext.erasing', true) = 'on' THEN",
            f"IF TG_OP = 'UPDATE' AND current_setting('subtext.erasing', true) = 'on' OR {_RETAINS} THEN",
        ),
    ),
}
_LET_GO: Final = """
    CREATE FUNCTION access_log_let_go() RETURNS trigger LANGUAGE plpgsql
    SET search_path = {schema}, pg_temp AS $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM retention_runs AS run
            WHERE run.id::text = current_setting('subtext.retaining', true)
                AND run.tenant_id = OLD.tenant_id AND run.records = 'access_log'
                AND run.finished_at IS NULL AND OLD.at < run.captured_before
                AND subtext_retention_from(run.version_id) <= now()
        ) THEN
            RAISE EXCEPTION 'no run of retention lets entry % of access_log go', OLD.id
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END
    $$
"""
_REFUSE_WITH_RECORDS: Final = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM retention_versions WHERE records IS NOT NULL) THEN
            RAISE EXCEPTION 'periods of records are set, which a service of before would take for readings'
            USING ERRCODE = 'restrict_violation';
        END IF;
    END $$
"""


def upgrade() -> None:
    op.execute(_LOCK)
    for table in ("retention_versions", "retention_runs"):
        op.add_column(table, sa.Column("records", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_retention_versions_records"),
        "retention_versions",
        f"records IS NULL OR {_RECORDS} AND model_id IS NULL",
    )
    op.alter_column("retention_runs", "model_id", nullable=True)
    op.create_check_constraint(
        op.f("ck_retention_runs_of_one"),
        "retention_runs",
        f"num_nonnulls(model_id, records) = 1 AND {_RECORDS}",
    )
    op.create_index(
        "uq_retention_runs_unfinished_records",
        "retention_runs",
        ["tenant_id", "records"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL AND records IS NOT NULL"),
    )
    for function, changes in _CHANGES.items():
        functions.rewrite(function, changes)
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(sa.text(_LET_GO.format(schema=schema).replace(":", r"\:")))
    op.execute(
        "CREATE TRIGGER access_log_only_retained BEFORE DELETE ON access_log"
        " FOR EACH ROW EXECUTE FUNCTION access_log_let_go()"
    )
    op.execute("ALTER TABLE access_log ENABLE ALWAYS TRIGGER access_log_only_retained")


def downgrade() -> None:
    op.execute(_LOCK)
    op.execute(_REFUSE_WITH_RECORDS)
    op.execute("DROP TRIGGER access_log_only_retained ON access_log")
    op.execute("DROP FUNCTION access_log_let_go()")
    for function, changes in _CHANGES.items():
        functions.rewrite(function, tuple((new, old) for old, new in changes))
    op.drop_index("uq_retention_runs_unfinished_records", "retention_runs")
    op.drop_constraint(op.f("ck_retention_runs_of_one"), "retention_runs")
    op.drop_constraint(op.f("ck_retention_versions_records"), "retention_versions")
    op.alter_column("retention_runs", "model_id", nullable=False)
    for table in ("retention_versions", "retention_runs"):
        op.drop_column(table, "records")
