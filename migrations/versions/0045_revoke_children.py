"""Let a key say which one made it, and revoke with a key all that it made, and what those made.

`made_from` names the first key of a line, by which a line is one identity. Of keys from before it is the
only maker that is known, so they go with the first of their line.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import functions

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

_MAKE: Final = "subtext_make_key(text, uuid, text, bytea, text[], text, text[], timestamptz)"
_REVOKE: Final = "subtext_revoke_key(uuid)"
# All at the same time, by which one knows what went with a key.
_WITH_CHILDREN: Final = """IF NOT FOUND THEN RETURN false; END IF;
        UPDATE api_keys SET revoked_at = now()
            WHERE id IN (SELECT subtext_keys_made_by(key)) AND revoked_at IS NULL;
        RETURN true;"""
# By function: how it was before, and how it is now.
_CHANGES: Final = {
    _MAKE: (
        ("expires_at, made_from)", "expires_at, made_from, made_by)"),
        ("COALESCE(own.made_from, own.id));", "COALESCE(own.made_from, own.id), own.id);"),
    ),
    _REVOKE: (("RETURN FOUND;", _WITH_CHILDREN),),
}
_MADE_BY: Final = """
    CREATE FUNCTION subtext_keys_made_by(key uuid) RETURNS SETOF uuid LANGUAGE sql STABLE
    SET search_path = {schema}, pg_temp AS $$
        WITH RECURSIVE line AS (
            SELECT id FROM api_keys WHERE COALESCE(made_by, made_from) = key
            UNION
            SELECT made.id FROM api_keys AS made
            JOIN line ON COALESCE(made.made_by, made.made_from) = line.id
        )
        SELECT id FROM line
    $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN made_by uuid REFERENCES api_keys (id)")
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(_MADE_BY.format(schema=schema))
    for function, changes in _CHANGES.items():
        functions.rewrite(function, changes)


def downgrade() -> None:
    for function, changes in _CHANGES.items():
        functions.rewrite(function, tuple((new, old) for old, new in changes))
    op.execute("DROP FUNCTION subtext_keys_made_by(uuid)")
    op.execute("ALTER TABLE api_keys DROP COLUMN made_by")
