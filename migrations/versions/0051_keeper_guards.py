"""Let rows of canaries and messages to webhooks go by retention or erasure alone, whoever deletes them.

1. A canary's reading or flag goes by an unfinished run of canaries whose period counts now, or by an
   erasure of its capture or tenant that may be carried out now. What a hold may be about stays.
2. A message and its deliveries go with their event, of whose going the log tells, or by a run of messages
   whose period counts now, once nothing of them waits and unless a hold may cover their incident. This is
   looked at when the transaction ends, for an event goes after its message.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0049"
branch_labels = None
depends_on = None

_PATH: Final = "SET search_path = {schema}, pg_temp"
# Whatever tenant the caller names: of another one it would meet no hold, no event and no message. Only an
# administrator may let a function set it by itself.
_NAMED: Final = "named text := COALESCE(current_setting('subtext.tenant', true), '');"
_OF_ALL: Final = "PERFORM set_config('subtext.tenant', '', true);"
_OF_NAMED: Final = "PERFORM set_config('subtext.tenant', named, true);"
_NOT_LIFTED: Final = """NOT EXISTS (
                    SELECT FROM legal_hold_lifts AS lift
                    WHERE lift.hold_id = hold.id AND lift.step = 'confirmed'
                )"""
_CANARY_IS_HELD: Final = f"""
    CREATE FUNCTION subtext_canary_may_be_held(of_tenant uuid, of_capture uuid, at timestamptz)
    RETURNS boolean LANGUAGE sql STABLE {_PATH} AS $$
        SELECT EXISTS (
            SELECT FROM legal_holds AS hold
            WHERE hold.tenant_id = of_tenant AND (hold.captured_from IS NULL OR at >= hold.captured_from)
                AND (hold.captured_to IS NULL OR at < hold.captured_to)
                AND (hold.capture_id IS NULL OR hold.capture_id = of_capture) AND {_NOT_LIFTED}
        )
    $$
"""  # noqa: S608
# What else a hold says is not looked at: one incident too many stays, and none too few.
_INCIDENT_IS_HELD: Final = f"""
    CREATE FUNCTION subtext_incident_may_be_held(incident uuid)
    RETURNS boolean LANGUAGE sql STABLE {_PATH} AS $$
        SELECT EXISTS (
            SELECT FROM incidents AS one JOIN legal_holds AS hold ON hold.tenant_id = one.tenant_id
            WHERE one.id = incident AND (hold.model_id IS NULL OR hold.model_id = one.model_id)
                AND (hold.captured_from IS NULL OR one.last_captured_at >= hold.captured_from)
                AND (hold.captured_to IS NULL OR one.first_captured_at < hold.captured_to)
                AND (hold.capture_id IS NULL OR hold.capture_id = one.capture_id) AND {_NOT_LIFTED}
        )
    $$
"""  # noqa: S608
_RUN: Final = """SELECT FROM retention_runs AS run
            WHERE run.tenant_id = OLD.tenant_id AND run.records = '{records}' AND run.finished_at IS NULL
                AND run.version_id = subtext_counting_version(run.tenant_id, run.model_id, run.records)"""
_LET_CANARY_GO: Final = """
    CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql {path} AS $$
    DECLARE {named}
    BEGIN
        {of_all}
        IF subtext_canary_may_be_held(OLD.tenant_id, OLD.capture_id, OLD.{at}) OR NOT EXISTS (
            {run} AND OLD.{at} < run.captured_before
                AND run.id::text = current_setting('subtext.retaining', true)
        ) AND NOT EXISTS (
            SELECT FROM erasures AS asked
            WHERE asked.tenant_id = OLD.tenant_id AND asked.state = 'open' AND subtext_may_erase(asked.id)
                AND CASE asked.scope
                    WHEN 'capture' THEN asked.identifier::uuid = OLD.capture_id
                    WHEN 'tenant' THEN OLD.stored_at <= asked.asked_at
                    ELSE false
                END
        ) THEN
            RAISE EXCEPTION 'neither retention nor an erasure lets this row of % go', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
        END IF;
        {of_named}
        RETURN OLD;
    END
    $$
"""
_LET_MESSAGE_GO: Final = f"""
    CREATE FUNCTION webhook_messages_let_go() RETURNS trigger LANGUAGE plpgsql {_PATH} AS $$
    DECLARE
        {_NAMED}
        of_incident uuid;
    BEGIN
        {_OF_ALL}
        SELECT incident_id INTO of_incident FROM incident_events WHERE id = OLD.event_id;
        IF of_incident IS NOT NULL AND (
            subtext_incident_may_be_held(of_incident) OR NOT EXISTS (
                {_RUN.format(records="webhooks")} AND OLD.created_at < run.captured_before
            )
        ) THEN
            RAISE EXCEPTION 'no run of retention lets the message of event % go', OLD.event_id
            USING ERRCODE = 'restrict_violation';
        END IF;
        {_OF_NAMED}
        RETURN NULL;
    END
    $$
"""  # noqa: S608
_LET_DELIVERY_GO: Final = f"""
    CREATE FUNCTION webhook_deliveries_let_go() RETURNS trigger LANGUAGE plpgsql {_PATH} AS $$
    DECLARE {_NAMED}
    BEGIN
        {_OF_ALL}
        IF EXISTS (SELECT FROM webhook_messages WHERE event_id = OLD.event_id)
            OR OLD.state = 'pending' AND EXISTS (SELECT FROM incident_events WHERE id = OLD.event_id)
        THEN
            RAISE EXCEPTION 'a delivery of event % goes with its message, once sent', OLD.event_id
            USING ERRCODE = 'restrict_violation';
        END IF;
        {_OF_NAMED}
        RETURN NULL;
    END
    $$
"""  # noqa: S608
_CANARIES: Final = {"canary_readings": "captured_at", "canary_flags": "stored_at"}
_MESSAGES: Final = ("webhook_messages", "webhook_deliveries")


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    of_canaries = [
        _LET_CANARY_GO.format(
            function=f"{table}_let_go",
            path=_PATH,
            named=_NAMED,
            of_all=_OF_ALL,
            of_named=_OF_NAMED,
            run=_RUN.format(records="canaries"),
            at=at,
        )
        for table, at in _CANARIES.items()
    ]
    for function in (_CANARY_IS_HELD, _INCIDENT_IS_HELD, *of_canaries, _LET_MESSAGE_GO, _LET_DELIVERY_GO):
        op.execute(sa.text(function.replace("{schema}", schema).replace(":", r"\:")))
    for table in _CANARIES:
        _guard(table, f"TRIGGER {table}_only_retained BEFORE DELETE ON {table}")
    for table in _MESSAGES:
        made = f"CONSTRAINT TRIGGER {table}_only_retained AFTER DELETE ON {table}"
        _guard(table, f"{made} DEFERRABLE INITIALLY DEFERRED")


def _guard(table: str, trigger: str) -> None:
    op.execute(f"CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION {table}_let_go()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_only_retained")


def downgrade() -> None:
    for table in (*_MESSAGES, *_CANARIES):
        op.execute(f"DROP TRIGGER {table}_only_retained ON {table}")
        op.execute(f"DROP FUNCTION {table}_let_go()")
    op.execute("DROP FUNCTION subtext_incident_may_be_held(uuid)")
    op.execute("DROP FUNCTION subtext_canary_may_be_held(uuid, uuid, timestamptz)")
