"""Name the captures that are stored already, each by the one id that is known of it.

Samples are read in the order of their time, some thousands in a transaction, and nothing but the new
table is written: readers and writers go on, and an attempt that was killed is made good by the next one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SAMPLES_AT_ONCE = 20_000
# In the order of time, so that the first sample of a capture is the one that is met first. What captures
# of before have for a key is `service.store.identity.capture_key`.
_NAME_SOME = sa.text("""
    WITH batch AS MATERIALIZED (
        SELECT id, model_id, capture_id, request_id, captured_at
        FROM samples
        WHERE (captured_at, id) > (CAST(:captured_at AS timestamptz), CAST(:id AS uuid))
        ORDER BY captured_at, id
        LIMIT :at_once
    ), named AS (
        INSERT INTO request_names (name, capture, model_id, capture_id, request_id, captured_at)
        SELECT
            request_id,
            coalesce(
                capture_id,
                CAST(
                    encode(substr(sha256(convert_to(model_id || '/' || request_id, 'UTF8')), 1, 16), 'hex')
                    AS uuid
                )
            ),
            model_id, capture_id, request_id, min(captured_at)
        FROM batch
        GROUP BY model_id, capture_id, request_id
        ON CONFLICT DO NOTHING
    )
    SELECT captured_at, id FROM batch ORDER BY captured_at DESC, id DESC LIMIT 1
""")


def upgrade() -> None:
    last = {"captured_at": "-infinity", "id": "00000000-0000-0000-0000-000000000000"}
    with op.get_context().autocommit_block():
        while last:
            found = (
                op.get_bind().execute(_NAME_SOME, {**last, "at_once": _SAMPLES_AT_ONCE}).mappings().first()
            )
            last = {} if found is None else dict(found)


def downgrade() -> None:
    """Leave the names to the revision before, which drops their table."""
