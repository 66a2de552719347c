"""Give each capture an identity of its own, so that a request id may come again.

Two columns that may be empty, so nothing is rewritten, and two constraints less. What was stored before
has no capture: there, and in records that still wait in the stream, the request id stays the identity.
A downgrade fails while two captures share a request id.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UNIQUE = {
    "samples": ["model_id", "request_id", "layer", "position"],
    "flags": ["model_id", "request_id", "layer", "concept", "decoder_id"],
}


def _name(table: str) -> str:
    return op.f(f"uq_{table}_{'_'.join(_UNIQUE[table])}")


def upgrade() -> None:
    for table in _UNIQUE:
        op.add_column(table, sa.Column("capture_id", sa.Uuid(), nullable=True))
        op.drop_constraint(_name(table), table, type_="unique")


def downgrade() -> None:
    for table, columns in _UNIQUE.items():
        op.create_unique_constraint(_name(table), table, columns)
        op.drop_column(table, "capture_id")
