"""Keep what a reading says beyond its token, its kind of position, its claims and how it was chosen.

Workers of the revision before cannot write to these tables: stop them, migrate, start the new ones.
What waits in the stream meanwhile is not lost. Explanations of before were one candidate each and were
compared with no token's mean; which of their tokens belonged to the chat template is not known, so a
prompt's are all called prompt.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.add_column("decoders", sa.Column("verified_above", _JSON, nullable=True))
    op.add_column("decoders", sa.Column("candidates", sa.Integer(), nullable=False, server_default="1"))
    op.create_check_constraint(op.f("ck_decoders_candidates"), "decoders", "candidates >= 1")
    op.add_column("explanations", sa.Column("fve_beyond_token", sa.Double(), nullable=True))
    op.add_column("explanations", sa.Column("position_class", sa.Text(), nullable=True))
    op.add_column("explanations", sa.Column("claims", _JSON, nullable=True))
    op.add_column("explanations", sa.Column("candidates", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("explanations", sa.Column("margin", sa.Double(), nullable=True))
    op.execute(
        "UPDATE explanations"
        " SET position_class = CASE samples.phase WHEN 'prefill' THEN 'prompt' ELSE 'answer' END"
        " FROM samples WHERE samples.id = explanations.sample_id"
    )
    op.alter_column("explanations", "position_class", nullable=False)
    op.create_check_constraint(
        op.f("ck_explanations_position_class"),
        "explanations",
        "position_class IN ('template', 'prompt', 'answer')",
    )
    op.create_check_constraint(op.f("ck_explanations_candidates"), "explanations", "candidates >= 1")
    # The defaults were for the rows that are there: whoever writes a new one has to say.
    for table in ("decoders", "explanations"):
        op.alter_column(table, "candidates", server_default=None)


def downgrade() -> None:
    for name in ("candidates", "position_class"):
        op.drop_constraint(op.f(f"ck_explanations_{name}"), "explanations", type_="check")
    for column in ("margin", "candidates", "claims", "position_class", "fve_beyond_token"):
        op.drop_column("explanations", column)
    op.drop_constraint(op.f("ck_decoders_candidates"), "decoders", type_="check")
    for column in ("candidates", "verified_above"):
        op.drop_column("decoders", column)
