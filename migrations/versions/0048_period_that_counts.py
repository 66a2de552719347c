"""Let rows go by the period that counts now, and no key be made behind the back of who revokes its maker.

1. A run named any period that was ever in force. So a shorter one that a longer one had replaced still let
   rows go, by whoever is signed in as the keeper. Triggers now ask for the one that counts.
2. A hold kept entries of the access log and runs of canaries by the keeper's own care alone, and runs of
   canaries went without any run of retention. Triggers see to both.
3. A key was revoked without those that it was making in that moment. Who makes one now locks his own, and
   who revokes looks again until nothing is left.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import functions

revision = "0048"
down_revision = "0046"
branch_labels = None
depends_on = None

_COUNTING: Final = """
    CREATE FUNCTION subtext_counting_version(of_tenant uuid, of_model uuid, of_records text)
    RETURNS uuid LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $$
        SELECT id FROM retention_versions
        WHERE tenant_id = of_tenant AND records IS NOT DISTINCT FROM of_records
            AND (model_id IS NULL OR model_id = of_model) AND subtext_retention_from(id) <= now()
        ORDER BY model_id IS NULL, subtext_retention_from(id) DESC, set_at DESC, id DESC LIMIT 1
    $$
"""
# What a hold covers was captured before anybody read it: all since its beginning may tell of that.
_IS_HELD: Final = """
    CREATE FUNCTION subtext_may_be_held(of_tenant uuid, at timestamptz) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = {schema}, pg_temp AS $$
        SELECT EXISTS (
            SELECT FROM legal_holds AS hold
            WHERE hold.tenant_id = of_tenant AND (hold.captured_from IS NULL OR at >= hold.captured_from)
                AND NOT EXISTS (
                    SELECT FROM legal_hold_lifts AS lift
                    WHERE lift.hold_id = hold.id AND lift.step = 'confirmed'
                )
        )
    $$
"""
_LET_CANARY_GO: Final = """
    CREATE FUNCTION canary_runs_let_go() RETURNS trigger LANGUAGE plpgsql
    SET search_path = {schema}, pg_temp AS $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM retention_runs AS run
            WHERE run.id::text = current_setting('subtext.retaining', true)
                AND run.tenant_id = OLD.tenant_id AND run.records = 'canaries'
                AND run.finished_at IS NULL AND OLD.ended_at < run.captured_before
                AND run.version_id = subtext_counting_version(run.tenant_id, run.model_id, run.records)
        ) OR subtext_may_be_held(OLD.tenant_id, OLD.ended_at) THEN
            RAISE EXCEPTION 'no run of retention lets run % of a canary go', OLD.id
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END
    $$
"""
_OF_THE_RUN: Final = "subtext_counting_version(run.tenant_id, run.model_id, run.records)"
_OF_RUN: Final = "subtext_counting_version(tenant_id, model_id, records)"
_REVOKE_ONCE: Final = """UPDATE api_keys SET revoked_at = now()
            WHERE id IN (SELECT subtext_keys_made_by(key)) AND revoked_at IS NULL;
"""
# Each look is a snapshot of its own, and waits for who is making a key by one of those that it revokes.
_REVOKE_ALL: Final = """LOOP
            UPDATE api_keys SET revoked_at = now()
                WHERE id IN (SELECT subtext_keys_made_by(key)) AND revoked_at IS NULL;
            EXIT WHEN NOT FOUND;
        END LOOP;
"""
_MAKE: Final = "subtext_make_key(text, uuid, text, bytea, text[], text, text[], timestamptz)"
_IS_VALID: Final = "AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
# By function: how it was before, and how it is now.
_CHANGES: Final = {
    "subtext_begin_retention()": (
        (
            "AND subtext_retention_from(id) <= now();",
            "AND id = subtext_counting_version(NEW.tenant_id, NEW.model_id, NEW.records);",
        ),
    ),
    "subtext_bury()": (
        (
            "SELECT subtext_retention_from(version_id) <= now() INTO",
            f"SELECT version_id = {_OF_RUN} INTO",
        ),
    ),
    "access_log_let_go()": (
        (
            "AND subtext_retention_from(run.version_id) <= now()",
            f"AND run.version_id = {_OF_THE_RUN} AND NOT subtext_may_be_held(OLD.tenant_id, OLD.at)",
        ),
    ),
    _MAKE: ((f"{_IS_VALID};", f"{_IS_VALID} FOR SHARE;"),),
    "subtext_revoke_key(uuid)": ((_REVOKE_ONCE, _REVOKE_ALL),),
}


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for function in (_COUNTING, _IS_HELD, _LET_CANARY_GO):
        op.execute(sa.text(function.format(schema=schema).replace(":", r"\:")))
    for function, changes in _CHANGES.items():
        functions.rewrite(function, changes)
    op.execute(
        "CREATE TRIGGER canary_runs_only_retained BEFORE DELETE ON canary_runs"
        " FOR EACH ROW EXECUTE FUNCTION canary_runs_let_go()"
    )
    op.execute("ALTER TABLE canary_runs ENABLE ALWAYS TRIGGER canary_runs_only_retained")


def downgrade() -> None:
    op.execute("DROP TRIGGER canary_runs_only_retained ON canary_runs")
    op.execute("DROP FUNCTION canary_runs_let_go()")
    for function, changes in _CHANGES.items():
        functions.rewrite(function, tuple((new, old) for old, new in changes))
    op.execute("DROP FUNCTION subtext_may_be_held(uuid, timestamptz)")
    op.execute("DROP FUNCTION subtext_counting_version(uuid, uuid, text)")
