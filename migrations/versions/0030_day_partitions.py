"""Partition by day what grows with traffic, so that a day can be dropped in a moment.

1. `concept_matches` gets the time of its explanation: a trigger gives it to what is written meanwhile, and
   what was there is filled in parts, each committed.
2. The indexes of the new keys are built beside who writes, and each table is checked to end before the
   bound.
3. Under one short lock each table becomes the first partition of a new one, `TABLE_before`. No row is
   written.

`service.store.partitions` makes and drops days by the functions of this revision. A worker of before waits,
as for a store that is away, until it is replaced: its matches have no time.
"""

import datetime as dt
from typing import Final, NamedTuple

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index, locks, partitions

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_PART: Final = 5000
_LATEST: Final = dt.timedelta(days=30)


class _Index(NamedTuple):
    name: str
    columns: tuple[str, ...]
    where: str | None = None


class _Table(NamedTuple):
    name: str
    key: tuple[str, ...]
    """Of the primary key from now on; `old_key` of the one before."""
    old_key: tuple[str, ...]
    kept: tuple[_Index, ...] = ()
    new: tuple[_Index, ...] = ()
    old: tuple[_Index, ...] = ()
    """Indexes that both revisions have, that only this one has, and that only the one before has."""
    references: tuple[tuple[str, str], ...] = ()
    """Columns with the tables whose id they hold: those that are not partitioned."""

    @property
    def before(self) -> str:
        return f"{self.name}_before"

    @property
    def bound(self) -> str:
        return f"ck_{self.name}_before"


# In the order in which workers take their locks: in another, a worker and the migrator could each wait for
# what the other has.
_TABLES: Final = (
    _Table(
        "samples",
        ("id", "captured_at"),
        ("id",),
        kept=(
            _Index("ix_samples_request_id", ("request_id",)),
            _Index("ix_samples_capture_id", ("capture_id",), "capture_id IS NOT NULL"),
            _Index(
                "ix_samples_trace_id_captured_at_id",
                ("trace_id", "captured_at", "id"),
                "trace_id IS NOT NULL",
            ),
            _Index("ix_samples_captured_at_id", ("captured_at", "id")),
            _Index(
                "ix_samples_tenant_id_subject_captured_at_id",
                ("tenant_id", "subject", "captured_at", "id"),
                "subject IS NOT NULL",
            ),
        ),
        references=(("model_id", "models"),),
    ),
    _Table(
        "request_names",
        ("name", "capture", "captured_at"),
        ("name", "capture"),
        kept=(_Index("ix_request_names_name_captured_at_capture", ("name", "captured_at", "capture")),),
        references=(("model_id", "models"),),
    ),
    _Table(
        "explanations",
        ("id", "captured_at"),
        ("id",),
        kept=(
            _Index("ix_explanations_captured_at_id", ("captured_at", "id")),
            _Index("ix_explanations_tenant_id_captured_at_id", ("tenant_id", "captured_at", "id")),
        ),
        new=(_Index("ix_explanations_decoder_id_captured_at_id", ("decoder_id", "captured_at", "id")),),
        old=(_Index("ix_explanations_decoder_id", ("decoder_id",)),),
        references=(("decoder_id", "decoders"),),
    ),
    _Table(
        "concept_matches",
        ("explanation_id", "concept", "captured_at"),
        ("explanation_id", "concept"),
        new=(
            _Index(
                "ix_concept_matches_page",
                ("tenant_id", "concept", "captured_at", "explanation_id"),
            ),
        ),
        old=(_Index("ix_concept_matches_concept_explanation_id", ("concept", "explanation_id")),),
    ),
)
_READINGS: Final = ("sample_id", "decoder_id")


def upgrade() -> None:
    bound = _bound()
    partitions.create_functions()
    _time_matches()
    for table in _TABLES:
        concurrent_index.build(_new_key(table), table.name, *table.key, where=None, unique=True)
        for index in table.new:
            concurrent_index.build(f"{index.name}_before", table.name, *index.columns, where=None)
    concurrent_index.build(
        "uq_readings_before", "explanations", *_READINGS, "captured_at", where=None, unique=True
    )
    with op.get_context().autocommit_block():
        _check("concept_matches", "ck_concept_matches_timed", "captured_at IS NOT NULL")
        for table in _TABLES:
            _check(table.name, table.bound, f"captured_at < '{bound.isoformat()}'")
    locks.lock(*(table.name for table in _TABLES))
    op.execute("DROP TRIGGER fill_time ON concept_matches")
    op.execute("DROP FUNCTION subtext_time_of_match()")
    op.execute("ALTER TABLE concept_matches ALTER COLUMN captured_at SET NOT NULL")
    op.execute("ALTER TABLE concept_matches ALTER COLUMN captured_at SET DEFAULT subtext_no_time()")
    op.execute("ALTER TABLE concept_matches DROP CONSTRAINT ck_concept_matches_timed")
    # No row of a partition could be dropped while one of another table might need it.
    op.execute("ALTER TABLE explanations DROP CONSTRAINT fk_explanations_sample_id_samples")
    op.execute("ALTER TABLE concept_matches DROP CONSTRAINT fk_concept_matches_explanation_id_explanations")
    for table in _TABLES:
        _wrap(table, bound)


def downgrade() -> None:
    _restore_before()
    for table in _TABLES:
        concurrent_index.build(f"old_{table.name}", table.before, *table.old_key, where=None, unique=True)
        for index in table.old:
            concurrent_index.build(index.name, table.before, *index.columns, where=None)
    concurrent_index.build("old_readings", "explanations_before", *_READINGS, where=None, unique=True)
    locks.lock(*(table.name for table in _TABLES))
    for table in reversed(_TABLES):
        _unwrap(table)
    op.execute("ALTER TABLE concept_matches DROP COLUMN captured_at")
    op.execute("DROP FUNCTION subtext_no_time()")
    _refer("explanations", "sample_id", "samples")
    _refer("concept_matches", "explanation_id", "explanations")
    partitions.drop_functions()


def _bound() -> dt.datetime:
    """Return the midnight that ends the first partition: over a day from now, and behind every row."""
    latest = max(filter(None, map(_latest, ("samples", "explanations", "request_names"))), default=None)
    now = op.get_bind().execute(sa.text("SELECT now()")).scalar_one()
    if latest is not None and latest > now + _LATEST:
        raise SystemExit(
            f"samples say that they were captured up to {latest.isoformat()}, over 30 days ahead: all days"
            " up to then would be one partition, which could not be dropped before; delete those with a"
            " captured_at over 30 days ahead, with their matches, explanations and names, and set the"
            " clock of the server that they are from"
        )
    last = max(now + dt.timedelta(days=1), latest or now).astimezone(dt.UTC)
    return dt.datetime.combine(last.date() + dt.timedelta(days=1), dt.time(), dt.UTC)


def _latest(table: str) -> dt.datetime | None:
    found: dt.datetime | None = (
        op.get_bind().execute(sa.text(f"SELECT max(captured_at) FROM {table}")).scalar_one()  # noqa: S608
    )
    return found


def _time_matches() -> None:
    """Give each match the time of its explanation, by which it is found in its day."""
    op.execute("ALTER TABLE concept_matches ADD COLUMN IF NOT EXISTS captured_at timestamptz")
    op.execute("DROP TRIGGER IF EXISTS fill_time ON concept_matches")
    op.execute(
        """
        CREATE OR REPLACE FUNCTION subtext_time_of_match() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            SELECT captured_at INTO NEW.captured_at FROM explanations WHERE id = NEW.explanation_id;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER fill_time BEFORE INSERT ON concept_matches"
        " FOR EACH ROW EXECUTE FUNCTION subtext_time_of_match()"
    )
    # ObjectNotInPrerequisiteState: an operational error, for which a worker waits and gives up no row.
    op.execute(
        """
        CREATE OR REPLACE FUNCTION subtext_no_time() RETURNS timestamptz LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'a match needs the time of its explanation'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'replace this worker by one of the store''s version';
        END $$
        """
    )
    with op.get_context().autocommit_block():
        last = ("00000000-0000-0000-0000-000000000000", "")
        while True:
            rows = (
                op.get_bind()
                .execute(
                    sa.text(
                        """
                        WITH part AS (
                            SELECT explanation_id, concept FROM concept_matches
                            WHERE (explanation_id, concept) > (CAST(:id AS uuid), :concept)
                            ORDER BY explanation_id, concept LIMIT :limit
                        ), filled AS (
                            UPDATE concept_matches AS match SET captured_at = explanations.captured_at
                            FROM part JOIN explanations ON explanations.id = part.explanation_id
                            WHERE match.explanation_id = part.explanation_id
                            AND match.concept = part.concept AND match.captured_at IS NULL
                        )
                        SELECT explanation_id, concept FROM part
                        ORDER BY explanation_id DESC, concept DESC LIMIT 1
                        """
                    ),
                    {"id": last[0], "concept": last[1], "limit": _PART},
                )
                .all()
            )
            if not rows:
                return
            last = (str(rows[0][0]), rows[0][1])


def _check(table: str, name: str, condition: str) -> None:
    """Let the table obey the condition; only the looking takes long, and it locks nobody out."""
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _new_key(table: _Table) -> str:
    return f"new_{table.name}"


def _wrap(table: _Table, bound: dt.datetime) -> None:
    """Make the table the first partition of one that has its name, rights and policies."""
    name, before = table.name, table.before
    op.execute(f"ALTER TABLE {name} RENAME TO {before}")
    op.execute(
        f"ALTER TABLE {before} DROP CONSTRAINT pk_{name},"
        f" ADD CONSTRAINT pk_{before} PRIMARY KEY USING INDEX {_new_key(table)}"
    )
    for index in table.old:
        op.execute(f"DROP INDEX {index.name}")
    for index in table.kept:
        op.execute(f"ALTER INDEX {index.name} RENAME TO {index.name}_before")
    op.execute(
        f"CREATE TABLE {name} (LIKE {before} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
        " PARTITION BY RANGE (captured_at)"
    )
    op.execute(f"ALTER TABLE {name} DROP CONSTRAINT {table.bound}")
    op.execute(f"ALTER TABLE {name} ADD CONSTRAINT pk_{name} PRIMARY KEY ({', '.join(table.key)})")
    for index in (*table.kept, *table.new):
        where = "" if index.where is None else f" WHERE {index.where}"
        op.execute(f"CREATE INDEX {index.name} ON {name} ({', '.join(index.columns)}){where}")
    if name == "explanations":
        op.execute(
            f"ALTER TABLE {before} DROP CONSTRAINT uq_explanations_sample_id_decoder_id,"
            f" ADD CONSTRAINT uq_{before}_reading UNIQUE USING INDEX uq_readings_before"
        )
        op.execute(
            f"ALTER TABLE {name} ADD CONSTRAINT uq_explanations_sample_id_decoder_id_captured_at"
            " UNIQUE (sample_id, decoder_id, captured_at)"
        )
    for column, referred in table.references:
        _refer(name, column, referred)
    op.execute(f"ALTER TABLE {name} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ('{bound}')")
    op.execute(f"ALTER TABLE {before} DROP CONSTRAINT {table.bound}")
    op.execute(f"CREATE TABLE {name}_default PARTITION OF {name} DEFAULT")
    partitions.hand_over_rights(before, name)
    for partition in (before, f"{name}_default"):
        partitions.close(partition)


def _restore_before() -> None:
    """Make an empty first partition where retention has dropped it."""
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.execute(f"CREATE TABLE IF NOT EXISTS {table.before} (LIKE {table.name} INCLUDING ALL)")


def _unwrap(table: _Table) -> None:
    """Let the first partition take in the others' rows and be the table again."""
    name, before = table.name, table.before
    if partitions.is_partition(before):
        op.execute(f"ALTER TABLE {name} DETACH PARTITION {before}")
    for constraint in _constraints(before):
        op.execute(f"ALTER TABLE {before} DROP CONSTRAINT {constraint}")
    columns = ", ".join(partitions.columns_of(name))
    op.execute(
        f"INSERT INTO {before} ({columns}) SELECT {columns} FROM {name} ON CONFLICT DO NOTHING"  # noqa: S608
    )
    partitions.hand_over_rights(name, before)
    op.execute(f"DROP TABLE {name}")
    op.execute(f"ALTER TABLE {before} RENAME TO {name}")
    op.execute(f"ALTER TABLE {name} ADD CONSTRAINT pk_{name} PRIMARY KEY USING INDEX old_{name}")
    if name == "explanations":
        op.execute(
            f"ALTER TABLE {name} ADD CONSTRAINT uq_explanations_sample_id_decoder_id"
            " UNIQUE USING INDEX old_readings"
        )
    _rename_indexes(table)
    for column, referred in table.references:
        _refer(name, column, referred)


def _rename_indexes(table: _Table) -> None:
    """Give the indexes that both revisions have their names, and drop those of this one alone."""
    for index in table.kept:
        where = "" if index.where is None else f" WHERE {index.where}"
        op.execute(f"ALTER INDEX IF EXISTS {index.name}_before RENAME TO {index.name}")
        # Where retention has dropped the first partition.
        columns = ", ".join(index.columns)
        op.execute(f"CREATE INDEX IF NOT EXISTS {index.name} ON {table.name} ({columns}){where}")
    named = {index.name for index in (*table.kept, *table.old)}
    for found in sa.inspect(op.get_bind()).get_indexes(table.name):
        if found["name"] not in named and "duplicates_constraint" not in found:
            op.execute(f"DROP INDEX {found['name']}")


def _constraints(table: str) -> list[str]:
    """Return the names of the table's keys and references."""
    query = (
        "SELECT conname FROM pg_constraint"
        " WHERE conrelid = to_regclass(:name) AND contype IN ('p', 'u', 'f')"
    )
    return list(op.get_bind().execute(sa.text(query), {"name": table}).scalars())


def _refer(table: str, column: str, referred: str) -> None:
    op.create_foreign_key(op.f(f"fk_{table}_{column}_{referred}"), table, referred, [column], ["id"])
