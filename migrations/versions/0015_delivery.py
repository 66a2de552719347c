"""Send webhooks in the order of their priority, to whom each is owed, and keep concepts' versions by model.

`webhook_messages.routed_at` goes: it said once for all destinations whom a message was for. Services of the
revision before wait with their webhooks until they are replaced, and nothing is lost by it. Whatever can be
done twice is written so that it can: each index commits what was done before it.
"""

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index, locks

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# All first and in the order in which workers take them: in another, a worker and the migrator could each
# wait for what the other has.
_TABLES = ("incident_events", "webhook_messages", "webhook_deliveries", "concept_versions")
# As service.store.outbox puts them in order.
_PRIORITIES = """
    UPDATE webhook_deliveries SET priority =
        2 * CASE event.severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 WHEN 'info' THEN 2 ELSE 3 END
        + CASE WHEN EXISTS (
            SELECT FROM incident_events AS earlier
            WHERE earlier.incident_id = event.incident_id AND earlier.version <= event.version
            AND jsonb_path_exists(earlier.findings, '$[*].false_positive_rate ? (@ != null)')
        ) THEN 0 ELSE 1 END
    FROM incident_events AS event
    WHERE event.id = webhook_deliveries.event_id AND webhook_deliveries.state = 'pending'
"""
# A version belongs to the models that have flags by it, and in a store of one model to that one. Of any
# other nothing tells whose it was, so the next worker that has it says so.
_USED = """
    INSERT INTO model_concepts (model_id, digest, name, version)
    SELECT models.id, digest, concept_versions.name, version FROM concept_versions, models
    WHERE (SELECT count(*) FROM models) = 1 OR EXISTS (
        SELECT FROM flags WHERE model_id = models.id AND concept_digest = digest)
    ON CONFLICT DO NOTHING
"""
# What two models call by one version cannot stand in one name space: the later one loses its number there.
_UNNUMBER = """
    UPDATE concept_versions AS later SET version = NULL
    WHERE EXISTS (
        SELECT FROM concept_versions AS earlier
        WHERE earlier.name = later.name AND earlier.version = later.version
        AND (earlier.created_at, earlier.digest) < (later.created_at, later.digest))
"""
_FREE_VERSIONS = "ALTER TABLE concept_versions DROP CONSTRAINT IF EXISTS uq_concept_versions_name_version"


def upgrade() -> None:
    locks.lock(*_TABLES)
    op.execute("ALTER TABLE webhook_messages DROP COLUMN IF EXISTS routed_at")  # with its index
    op.execute(
        "ALTER TABLE webhook_deliveries ADD COLUMN IF NOT EXISTS priority smallint NOT NULL DEFAULT 0"
    )
    op.execute(_PRIORITIES)
    op.alter_column("incident_events", "findings", server_default=sa.text("'[]'::jsonb"))
    op.execute(_FREE_VERSIONS)
    # It commits what was done so far, as the second does: nothing is locked while all flags are looked at.
    concurrent_index.build("ix_webhook_messages_created_at", "webhook_messages", "created_at", where=None)
    op.create_table(
        "model_concepts",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("used_since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_concepts_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["digest"], ["concept_versions.digest"], name=op.f("fk_model_concepts_digest_concept_versions")
        ),
        sa.PrimaryKeyConstraint("model_id", "digest", name=op.f("pk_model_concepts")),
        sa.UniqueConstraint(
            "model_id", "name", "version", name=op.f("uq_model_concepts_model_id_name_version")
        ),
        if_not_exists=True,
    )
    concurrent_index.build(
        "ix_webhook_deliveries_destination_priority_next_attempt_at",
        "webhook_deliveries",
        "destination",
        "priority",
        "next_attempt_at",
        where="state = 'pending'",
    )
    op.execute(_USED)
    concurrent_index.drop("ix_webhook_deliveries_next_attempt_at", "webhook_deliveries")


def downgrade() -> None:
    locks.lock(*_TABLES)
    op.drop_index("ix_webhook_messages_created_at", "webhook_messages", if_exists=True)
    op.execute("ALTER TABLE webhook_messages ADD COLUMN IF NOT EXISTS routed_at timestamptz")
    # The services of before look at what is younger than a day, and send nothing twice.
    op.execute(
        "UPDATE webhook_messages SET routed_at = created_at WHERE created_at < now() - interval '1 day'"
    )
    op.drop_index(
        "ix_webhook_deliveries_destination_priority_next_attempt_at", "webhook_deliveries", if_exists=True
    )
    op.execute("ALTER TABLE webhook_deliveries DROP COLUMN IF EXISTS priority")
    op.alter_column("incident_events", "findings", server_default=None)
    op.drop_table("model_concepts", if_exists=True)
    op.execute(_UNNUMBER)
    op.execute(_FREE_VERSIONS)  # a downgrade that was interrupted has made it
    op.create_unique_constraint(
        op.f("uq_concept_versions_name_version"), "concept_versions", ["name", "version"]
    )
    concurrent_index.build(
        "ix_webhook_messages_created_at", "webhook_messages", "created_at", where="routed_at IS NULL"
    )
    concurrent_index.build(
        "ix_webhook_deliveries_next_attempt_at",
        "webhook_deliveries",
        "next_attempt_at",
        where="state = 'pending'",
    )
