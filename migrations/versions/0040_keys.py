"""Let the service make keys for whoever shows the secret of one that may, and revoke them.

It still writes no key by itself: two functions with the owner's rights do, and the one that makes a key
looks at the secret, so that whoever takes the service over has none to show. `service.store.roles` says who
may call them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

_MAKE = """
    CREATE FUNCTION {schema}.subtext_make_key(
        own_secret text, new_id uuid, new_name text, new_secret_sha256 bytea, new_scopes text[],
        new_role text, new_models text[], new_expires_at timestamptz
    ) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    DECLARE
        own api_keys;
        named uuid := NULLIF(current_setting('subtext.tenant', true), '')::uuid;
    BEGIN
        SELECT * INTO own FROM api_keys
            WHERE secret_sha256 = sha256(convert_to(own_secret, 'UTF8')) AND tenant_id = named
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
        IF own.id IS NULL THEN RETURN 'unknown_key'; END IF;
        IF NOT 'admin' = ANY (own.scopes) THEN
            IF NOT 'keys:write' = ANY (own.scopes) THEN RETURN 'not_allowed'; END IF;
            IF NOT new_scopes <@ own.scopes THEN RETURN 'other_scopes'; END IF;
        END IF;
        IF own.models IS NOT NULL AND (new_models IS NULL OR NOT new_models <@ own.models) THEN
            RETURN 'other_models';
        END IF;
        IF new_expires_at IS NULL OR new_expires_at > now() + interval '{days} days' THEN
            RETURN 'too_long';
        END IF;
        INSERT INTO api_keys (id, name, secret_sha256, scopes, role, models, tenant_id, expires_at)
            VALUES (new_id, new_name, new_secret_sha256, new_scopes, new_role, new_models, named,
                new_expires_at);
        RETURN 'made';
    END $$
"""
_REVOKE = """
    CREATE FUNCTION {schema}.subtext_revoke_key(key uuid) RETURNS boolean LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    BEGIN
        UPDATE api_keys SET revoked_at = now() WHERE id = key AND revoked_at IS NULL
            AND tenant_id = NULLIF(current_setting('subtext.tenant', true), '')::uuid;
        RETURN FOUND;
    END $$
"""
_DAYS = 367  # a year, a leap day and a day for clocks that differ
_SIGNATURES = (
    "subtext_make_key(text, uuid, text, bytea, text[], text, text[], timestamptz)",
    "subtext_revoke_key(uuid)",
)


def upgrade() -> None:
    downgrade()
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for signature, body in zip(_SIGNATURES, (_MAKE, _REVOKE), strict=True):
        op.execute(sa.text(body.format(schema=schema, days=_DAYS).replace(":", r"\:")))
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")


def downgrade() -> None:
    for signature in _SIGNATURES:
        op.execute(f"DROP FUNCTION IF EXISTS {signature}")
