"""Let incidents have an assignee and a second reviewer, and let them be listed as a queue.

New columns are null in rows of before, and no row is written again. Indexes are built beside running
workers. A verdict on an incident of a concept that asks for two reviewers needs the event of another one
before: a trigger and two unique indexes see to it, whoever holds the service's login.
"""

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index, locks

revision = "0039"
down_revision = "0037"
branch_labels = None
depends_on = None

# In the order in which the service takes them.
_TABLES = ("incidents", "incident_events")
_ASSIGNEE = (
    ("assignee_key_id", "uuid"),
    ("assignee_key_name", "text"),
    ("assignee_issuer", "text"),
    ("assignee_person", "text"),
)
_OF_EVENTS = (("proposed_state", "text"), ("proposal", "integer"))
_HAS_PROPOSAL = "proposal IS NOT NULL"
_RANK = "COALESCE(array_position(ARRAY['critical', 'warning', 'info'], severity), 4)"
_UNDECIDED = "state IN ('open', 'acknowledged')"
_PROPOSED = (
    "CASE WHEN proposed_state IS NULL THEN proposal IS NULL OR proposal < version"
    " ELSE kind = 'proposed' AND proposed_state IN ('confirmed', 'dismissed')"
    " AND proposal IS NOT DISTINCT FROM version END"
)
_CHECK = f"ALTER TABLE incident_events ADD CONSTRAINT ck_incident_events_proposed CHECK ({_PROPOSED})"
_NEED_TWO = """
    CREATE OR REPLACE FUNCTION incidents_need_two() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM flags JOIN concept_versions ON concept_versions.digest = flags.concept_digest
            WHERE flags.request_id = NEW.request_id AND flags.model_id = NEW.model_id
            AND flags.decoder_id = NEW.decoder_id AND flags.layer = NEW.layer
            AND flags.capture_id IS NOT DISTINCT FROM NEW.capture_id
            AND concept_versions.definition -> 'second_review' = 'true'
        ) AND NOT EXISTS (
            SELECT FROM incident_events AS decision JOIN incident_events AS proposal
            ON proposal.incident_id = decision.incident_id AND proposal.version = decision.proposal
            WHERE decision.incident_id = NEW.id
            AND decision.version = NEW.version AND NEW.version > OLD.version
            AND decision.to_state = NEW.state AND decision.labels = NEW.labels
            AND proposal.proposed_state = NEW.state AND proposal.labels = NEW.labels
            AND num_nonnulls(decision.key_id, decision.person) = 1
            AND num_nonnulls(proposal.key_id, proposal.person) = 1
            AND NOT EXISTS (
                SELECT FROM incident_events AS later
                WHERE later.incident_id = NEW.id AND later.version > proposal.version
                AND later.version < decision.version AND later.kind <> 'assigned'
            )
        ) THEN
            RAISE EXCEPTION 'incident %: two reviewers have to say that it is %', NEW.id, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'incidents_need_two';
        END IF;
        RETURN NEW;
    END
    $$
"""


def upgrade() -> None:
    locks.lock(*_TABLES)
    for table in _TABLES:
        for column, kind in _ASSIGNEE:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {kind}")
    for column, kind in _OF_EVENTS:
        op.execute(f"ALTER TABLE incident_events ADD COLUMN IF NOT EXISTS {column} {kind}")
    op.execute("ALTER TABLE incident_events DROP CONSTRAINT IF EXISTS ck_incident_events_proposed")
    op.execute(f"{_CHECK} NOT VALID")
    op.execute(_NEED_TWO)
    op.execute("DROP TRIGGER IF EXISTS incidents_need_two ON incidents")
    op.execute(
        "CREATE TRIGGER incidents_need_two BEFORE UPDATE ON incidents FOR EACH ROW"
        " WHEN (NEW.state IN ('confirmed', 'dismissed') AND OLD.state <> NEW.state)"
        " EXECUTE FUNCTION incidents_need_two()"
    )
    # In replication's mode too, which an administrator can give himself.
    op.execute("ALTER TABLE incidents ENABLE ALWAYS TRIGGER incidents_need_two")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE incident_events VALIDATE CONSTRAINT ck_incident_events_proposed")
    # One key says one thing of a proposal, in whichever session, and so does one person.
    for name, who in _ONE_STEP.items():
        columns = ("incident_id", "proposal", *who)
        concurrent_index.build(name, "incident_events", *columns, where=_HAS_PROPOSAL, unique=True)
    _build_queue()


_ONE_STEP = {
    "uq_incident_events_proposal_key": ("key_id",),
    "uq_incident_events_proposal_person": ("issuer", "person"),
}


def _build_queue() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_incidents_queue", "incidents", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "ix_incidents_queue",
            "incidents",
            [sa.text(_RANK), "opened_at", "id"],
            postgresql_concurrently=True,
            postgresql_where=sa.text(_UNDECIDED),
        )


def downgrade() -> None:
    locks.lock(*_TABLES)
    op.execute("DROP TRIGGER IF EXISTS incidents_need_two ON incidents")
    op.execute("DROP FUNCTION IF EXISTS incidents_need_two()")
    op.execute("DROP INDEX IF EXISTS ix_incidents_queue")
    op.execute("ALTER TABLE incident_events DROP CONSTRAINT IF EXISTS ck_incident_events_proposed")
    for column, _ in _OF_EVENTS:  # with its indexes
        op.execute(f"ALTER TABLE incident_events DROP COLUMN IF EXISTS {column}")
    for table in _TABLES:
        for column, _ in _ASSIGNEE:
            op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {column}")
