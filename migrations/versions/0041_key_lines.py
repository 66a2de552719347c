"""Count keys of which one made the other, or that one key made, as one identity; pin what triggers look at.

1. Whoever may make keys over REST could make himself the second identity that a lifted hold, a removal
   sooner than in its time and a verdict by two reviewers need. A key now says from which one it was made.
2. A trigger's function reads the caller's temporary tables before ours unless its search path says not to.
   So who ran SQL as the service or as the keeper could show it an empty table of flags or decisions.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import functions

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_MAKE: Final = "subtext_make_key(text, uuid, text, bytea, text[], text, text[], timestamptz)"
_NEED_TWO: Final = "incidents_need_two()"
_OF_SOMEBODY: Final = "AND num_nonnulls(proposal.key_id, proposal.person) = 1"
_OF_ONE: Final = "subtext_of_one_key(decision.key_id::text, proposal.key_id::text)"
# By function: how it was before, and how it is now.
_CHANGES: Final = {
    _MAKE: (
        ("models, tenant_id, expires_at)", "models, tenant_id, expires_at, made_from)"),
        (
            "                new_expires_at);",
            "                new_expires_at, COALESCE(own.made_from, own.id));",
        ),
    ),
    _NEED_TWO: ((_OF_SOMEBODY, f"{_OF_SOMEBODY} AND NOT {_OF_ONE}"),),
}
_OF_ONE_KEY: Final = """
    CREATE FUNCTION subtext_of_one_key(one text, other text) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT COALESCE(
            (SELECT COALESCE(made_from, id) FROM api_keys WHERE id::text = one)
            = (SELECT COALESCE(made_from, id) FROM api_keys WHERE id::text = other),
            false
        )
    $$
"""
_CONFIRM_REMOVAL: Final = """
    CREATE FUNCTION subtext_confirm_removal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF subtext_of_one_key(NEW.asked_by, NEW.key_id::text) THEN
            RAISE EXCEPTION 'ck_removal_decisions_other: keys of which one made the other are one identity'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ck_removal_decisions_other';
        END IF;
        RETURN NEW;
    END
    $$
"""
_CONFIRM_LIFT: Final = """
    CREATE FUNCTION subtext_confirm_lift() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM legal_hold_lifts AS asked WHERE asked.hold_id = NEW.hold_id
            AND asked.key_id <> NEW.key_id
            AND subtext_of_one_key(asked.key_id::text, NEW.key_id::text)
        ) THEN
            RAISE EXCEPTION 'keys of which one made the other are one identity'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_hold_lifts_of_two';
        END IF;
        RETURN NEW;
    END
    $$
"""
_TRIGGERS: Final = {
    "removal_decisions": ("subtext_confirm_removal", "NEW.decision = 'confirmed'"),
    "legal_hold_lifts": ("subtext_confirm_lift", "NEW.step = 'confirmed'"),
}
_NEW: Final = ("subtext_of_one_key(text, text)", "subtext_confirm_removal()", "subtext_confirm_lift()")
_OF_TRIGGERS: Final = (
    "subtext_objectable_until(uuid)", "subtext_may_erase(uuid)", "subtext_retention_from(uuid)",
    "subtext_postpone_erasure()", "subtext_postpone_version()", "subtext_decide_removal()",
    "subtext_carry_out_erasure()", "subtext_begin_retention()", "subtext_bury()", _NEED_TWO,
)  # fmt: skip


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN made_from uuid REFERENCES api_keys (id)")
    for function in (_OF_ONE_KEY, _CONFIRM_REMOVAL, _CONFIRM_LIFT):
        op.execute(sa.text(function.replace(":", r"\:")))
    for function, changes in _CHANGES.items():
        functions.rewrite(function, changes)
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for function in (*_NEW, *_OF_TRIGGERS):
        op.execute(f"ALTER FUNCTION {function} SET search_path = {schema}, pg_temp")
    for table, (function, when) in _TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER is_of_another_key BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when})"
            f" EXECUTE FUNCTION {function}()"
        )
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER is_of_another_key")


def downgrade() -> None:
    for table in _TRIGGERS:
        op.execute(f"DROP TRIGGER is_of_another_key ON {table}")
    for function in _OF_TRIGGERS:
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
    for function, changes in _CHANGES.items():
        functions.rewrite(function, tuple((new, old) for old, new in changes))
    for function in reversed(_NEW):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("ALTER TABLE api_keys DROP COLUMN made_from")
