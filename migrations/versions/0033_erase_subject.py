"""Let an erasure be of a data subject, by subject key.

The constraint is made first and held against the rows there are afterwards, which locks nobody out. On the
way back erasures of subjects stay as they are: the constraint of before is for new ones.
"""

from alembic import op

revision = "0033"
down_revision = "0031"
branch_labels = None
depends_on = None

_NAME = "ck_erasures_scope"


def upgrade() -> None:
    _allow("'request', 'capture', 'trace', 'subject', 'tenant'")
    op.execute(f"ALTER TABLE erasures VALIDATE CONSTRAINT {_NAME}")


def downgrade() -> None:
    _allow("'request', 'capture', 'trace', 'tenant'")


def _allow(scopes: str) -> None:
    op.execute(
        f"ALTER TABLE erasures DROP CONSTRAINT {_NAME},"
        f" ADD CONSTRAINT {_NAME} CHECK (scope IN ({scopes})) NOT VALID"
    )
