"""Group what was found on a capture into an incident, with its triage and what webhooks are told of it.

Four tables of their own, so no other is locked for longer than it takes to note a reference. Flags that
were raised before open an incident only when their capture gets more evidence.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_incidents()
    _create_events()
    _create_webhooks()


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_messages")
    op.drop_table("incident_events")
    op.drop_table("incidents")


def _time(name: str, *, nullable: bool = False, default: bool = False) -> "sa.Column[object]":
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=nullable,
        server_default=sa.func.now() if default else None,
    )


def _json(name: str, *, default: bool = False) -> "sa.Column[object]":
    return sa.Column(
        name, postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb") if default else None
    )


def _create_incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("capture_id", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _json("labels", default=True),
        sa.Column("anomaly_p_value", sa.Float(), nullable=True),
        _time("first_captured_at"),
        _time("last_captured_at"),
        _time("opened_at", default=True),
        _time("updated_at", default=True),
        sa.CheckConstraint(
            "state IN ('open', 'acknowledged', 'confirmed', 'dismissed')", name=op.f("ck_incidents_state")
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_incidents_version")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_incidents_model_id_models")),
        sa.ForeignKeyConstraint(
            ["decoder_id"], ["decoders.id"], name=op.f("fk_incidents_decoder_id_decoders")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_index("ix_incidents_opened_at_id", "incidents", ["opened_at", "id"])
    op.create_index("ix_incidents_state_opened_at_id", "incidents", ["state", "opened_at", "id"])
    op.create_index("ix_incidents_request_id", "incidents", ["request_id"])
    op.create_index(
        "ix_incidents_capture_id",
        "incidents",
        ["capture_id"],
        postgresql_where=sa.text("capture_id IS NOT NULL"),
    )


def _create_events() -> None:
    op.create_table(
        "incident_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _time("at", default=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        _json("labels", default=True),
        _json("findings"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incidents.id"], name=op.f("fk_incident_events_incident_id_incidents")
        ),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_incident_events_key_id_api_keys")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_events")),
        sa.UniqueConstraint("incident_id", "version", name=op.f("uq_incident_events_incident_id_version")),
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhook_messages",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        _time("created_at", default=True),
        _time("routed_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["event_id"], ["incident_events.id"], name=op.f("fk_webhook_messages_event_id_incident_events")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_webhook_messages")),
    )
    op.create_index(
        "ix_webhook_messages_created_at",
        "webhook_messages",
        ["created_at"],
        postgresql_where=sa.text("routed_at IS NULL"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _time("next_attempt_at"),
        sa.Column("last_error", sa.Text(), nullable=True),
        _time("created_at", default=True),
        _time("settled_at", nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["webhook_messages.event_id"],
            name=op.f("fk_webhook_deliveries_event_id_webhook_messages"),
        ),
        sa.PrimaryKeyConstraint("event_id", "destination", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_next_attempt_at",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("state = 'pending'"),
    )
