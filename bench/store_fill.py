"""Fill a store for bench-store, a day in a transaction, so that a fill that was stopped goes on.

Two tenants, four models, captures of eight positions of which every one is explained, texts of about 150
characters. Shares are by number, so that two fills are alike: 5% of the explanations match `food`, 1 of
100,000 matches `rare`; of 1% of the captures every position matches `self-harm` and a flag says so.

A day is filled before it is indexed and attached, as a dump is restored. What comes out is what `subtext
migrate` and the keeper make: columns, indexes, keys and rights are read from the tables themselves.
"""
# ruff: noqa: S608, E501  # SQL of our own tables, a column list a line

import datetime as dt
import re
import uuid
from typing import Any, Final, NamedTuple

import psycopg

from service.store.identity import tenant_id
from service.store.partitions import TABLES

POSITIONS: Final = 8  # of a capture
LAYER: Final = 20
_DAY_SECONDS: Final = 86_399
ACME: Final = "acme"
_SHARES: Final = (("chat", "default", 70), ("search", "default", 84), ("seldom", "default", 85))
"""Models with their tenants and the percent of captures up to theirs; `chat` of acme has the others."""

OF_DEFAULT: Final = 85
"""Percent of the captures that are of the default tenant."""

QUICK: Final = {
    "wal_level": "minimal",  # a table of the same transaction is written once, not twice
    "max_wal_senders": "0",
    "fsync": "off",
    "autovacuum": "off",  # each day is vacuumed as soon as it is full
}
"""Of a server that is being filled and restarted behind it."""


class Shape(NamedTuple):
    """How many rows a store has, of which days."""

    first: dt.date
    days: int
    rows_a_day: int
    """Explanations; as many samples."""
    until: dt.datetime = dt.datetime.max.replace(tzinfo=dt.UTC)
    """Nothing is captured later: what would be lies closer together."""

    def seconds_of(self, day: dt.date) -> int:
        """Return over how many seconds from its start the day's captures are spread."""
        start = dt.datetime.combine(day, dt.time(), dt.UTC)
        return max(1, min(_DAY_SECONDS, int((self.until - start).total_seconds())))

    def list_days(self) -> list[dt.date]:
        """Return its days, the oldest first."""
        return [self.first + dt.timedelta(days=number) for number in range(self.days)]


def base_of(day: dt.date) -> int:
    """Return the number of the day's first explanation."""
    return (day - dt.date(2000, 1, 1)).days * 10_000_000


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Store tenants, models and decoders, and note which days are full."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS bench")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS bench.filled (day date PRIMARY KEY, rows integer NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS bench.shares"
        " (percent integer PRIMARY KEY, model uuid, decoder uuid, tenant uuid)"
    )
    default, acme = tenant_id("default"), tenant_id(ACME)
    connection.execute(
        "INSERT INTO tenants (id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING", [acme, ACME]
    )
    tenants = {"default": default, ACME: acme}
    start = 0
    for name, tenant, until in (*_SHARES, ("chat", ACME, 100)):
        model = uuid.uuid5(uuid.NAMESPACE_URL, f"bench/{tenant}/{name}")
        decoder = uuid.uuid5(model, "decoder")
        connection.execute(
            "INSERT INTO models (id, name, d_model, tenant_id) VALUES (%s, %s, 576, %s) ON CONFLICT DO NOTHING",
            [model, name, tenants[tenant]],
        )
        connection.execute(
            "INSERT INTO decoders (id, model_id, name, digest, layer, fve_baseline, shuffled_fve_p95,"
            " candidates, calibration_n, card, tenant_id)"
            " VALUES (%s, %s, %s, %s, %s, 0.5, 0.02, 4, 512, '{}', %s) ON CONFLICT DO NOTHING",
            [decoder, model, f"{name}-l{LAYER}", decoder.hex, LAYER, tenants[tenant]],
        )
        connection.execute(
            "INSERT INTO bench.shares SELECT percent, %s, %s, %s FROM generate_series(%s::int, %s::int - 1)"
            " AS percent ON CONFLICT DO NOTHING",
            [model, decoder, tenants[tenant], start, until],
        )
        start = until
    connection.execute("ANALYZE bench.shares")


def list_filled(connection: psycopg.Connection[Any]) -> set[dt.date]:
    """Return the days that are full."""
    return {row[0] for row in connection.execute("SELECT day FROM bench.filled WHERE rows > 0")}


def fill_day(connection: psycopg.Connection[Any], shape: Shape, day: dt.date) -> None:
    """Fill one day in one transaction. The login must not be subject to row-level security."""
    base = base_of(day)
    values = {
        "base": base,
        "rows": shape.rows_a_day,
        "seconds": shape.seconds_of(day),
        "start": dt.datetime.combine(day, dt.time(), dt.UTC),
    }
    with connection.transaction():
        connection.execute("SET LOCAL timezone = 'UTC'")
        for table in TABLES:  # an empty one that was made ahead
            connection.execute(f"DROP TABLE IF EXISTS {table}_{day:%Y%m%d}".encode())
            connection.execute(
                f"CREATE TABLE {table}_{day:%Y%m%d} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES)".encode()
            )
        for statement in _STATEMENTS:
            connection.execute(statement.replace("{day}", day.strftime("%Y%m%d")).encode(), values)
        for table in TABLES:
            for index in _list_indexes(connection, table, f"{table}_{day:%Y%m%d}"):
                connection.execute(index.encode())
        for table in TABLES:  # all at last: attaching lets no other day be attached meanwhile
            _attach(connection, table, f"{table}_{day:%Y%m%d}", day)
        connection.execute(
            "INSERT INTO bench.filled VALUES (%s, %s) ON CONFLICT (day) DO UPDATE SET rows = EXCLUDED.rows",
            [day, shape.rows_a_day],
        )
    for table in TABLES:
        connection.execute(f"VACUUM ANALYZE {table}_{day:%Y%m%d}".encode())


def empty_day(connection: psycopg.Connection[Any], day: dt.date) -> None:
    """Note that the day was dropped, and delete its flags and incidents, which no day holds."""
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    span = [start, start + dt.timedelta(days=1)]
    for table, at in (("flags", "first_captured_at"), ("incidents", "first_captured_at")):
        if table == "incidents":
            connection.execute(
                "DELETE FROM incident_events WHERE incident_id IN (SELECT id FROM incidents"
                " WHERE first_captured_at >= %s AND first_captured_at < %s)",
                span,
            )
        connection.execute(f"DELETE FROM {table} WHERE {at} >= %s AND {at} < %s".encode(), span)
    connection.execute("UPDATE bench.filled SET rows = 0 WHERE day = %s", [day])  # the first day stays it


def fill_records(connection: psycopg.Connection[Any], shape: Shape) -> None:
    """Fill what listings read that lies in no day, unless it is there: access log and discoveries."""
    connection.execute("CREATE TABLE IF NOT EXISTS bench.records (at timestamptz NOT NULL)")
    if connection.execute("SELECT 1 FROM bench.records").fetchone() is not None:
        return
    with connection.transaction():
        for day in shape.list_days():
            values = {"base": base_of(day), "start": dt.datetime.combine(day, dt.time(), dt.UTC)}
            for statement in _RECORDS:
                connection.execute(statement.encode(), {**values, "tenant": tenant_id("default")})
        connection.execute("INSERT INTO bench.records VALUES (now())")
    connection.execute("VACUUM ANALYZE access_log, access_subjects, request_tests, anomaly_windows")


def _list_indexes(connection: psycopg.Connection[Any], table: str, partition: str) -> list[str]:
    """Return the statements by which the partition gets an index for each of the table's."""
    query = """
        SELECT pg_get_indexdef(indexrelid), pg_get_constraintdef(pg_constraint.oid)
        FROM pg_index LEFT JOIN pg_constraint ON conindid = indexrelid AND conrelid = indrelid
        WHERE indrelid = %s::regclass ORDER BY indexrelid
    """
    return [
        f"ALTER TABLE {partition} ADD {constraint}"
        if constraint is not None
        else re.sub(r"INDEX \S+ ON (ONLY )?\S+ ", f"INDEX ON {partition} ", definition, count=1)
        for definition, constraint in connection.execute(query, [table])
    ]


def _attach(connection: psycopg.Connection[Any], table: str, partition: str, day: dt.date) -> None:
    """As `subtext_make_day` does."""
    owner = "(SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass)"
    found = connection.execute(f"SELECT {owner}".encode(), [table]).fetchone()
    connection.execute(f"ALTER TABLE {partition} OWNER TO {found[0] if found else ''}".encode())
    connection.execute("SELECT subtext_close_partition(%s::regclass)", [partition])
    connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {partition}"
        f" FOR VALUES FROM ('{day}T00:00:00Z') TO ('{day + dt.timedelta(days=1)}T00:00:00Z')".encode()
    )


_NUMBERED: Final = f"""
    FROM generate_series(%(base)s::bigint, %(base)s::bigint + %(rows)s - 1) AS n
    CROSS JOIN LATERAL (
        SELECT n / {POSITIONS} AS c, %(start)s::timestamptz
            + (n - %(base)s::bigint) * (%(seconds)s::float8 * interval '1 second' / %(rows)s) AS at
    ) AS numbered
    -- Spread by a prime, so that the models of neighbours differ.
    JOIN bench.shares ON percent = (n / {POSITIONS}) * 37 %% 100
"""
_SAMPLES: Final = f"""
    INSERT INTO samples_{{day}} (id, model_id, capture_id, request_id, layer, position, token_id, token_text,
        phase, norm, stratum, trace_id, span_id, inclusion_probability, baseline_probability, reason,
        screen_scores, captured_at, stored_at, tenant_id)
    SELECT md5('s' || n)::uuid, model, md5('c' || c)::uuid, 'chatcmpl-' || md5('r' || c), {LAYER},
        40 + n %% {POSITIONS}, n %% 49152, ' word', 'decode', 200 + n %% 80, 'uniform',
        CASE WHEN c %% 2 = 0 THEN md5('t' || c / 4) END, CASE WHEN c %% 2 = 0 THEN left(md5('p' || c), 16) END,
        0.25, 0.125, 'decode', '{{"anomaly": 31.7}}', at, at + interval '20 seconds', tenant
    {_NUMBERED}
"""
_NAMES: Final = f"""
    INSERT INTO request_names_{{day}} (name, capture, model_id, capture_id, request_id, captured_at, tenant_id)
    SELECT name, md5('c' || c)::uuid, model, md5('c' || c)::uuid, 'chatcmpl-' || md5('r' || c), at, tenant
    {_NUMBERED} CROSS JOIN LATERAL (VALUES ('chatcmpl-' || md5('r' || c)), ('user-' || c %% 5000)) AS x (name)
    WHERE n %% {POSITIONS} = 0
"""
_EXPLANATIONS: Final = f"""
    INSERT INTO explanations_{{day}} (id, sample_id, decoder_id, captured_at, text, well_formed, cosine, fve,
        fve_beyond_token, position_class, verified, claims, candidates, margin, anomaly_score,
        anomaly_p_value, anomaly_calibration_n, created_at, tenant_id, log_salt)
    SELECT md5('e' || n)::uuid, md5('s' || n)::uuid, decoder, at,
        'An answer about ' || (ARRAY['breakfast', 'travel by train', 'sorting a list', 'a quarrel'])[1 + n %% 4]
            || ', in the middle of a step. Expects "' || left(md5('x' || n), 8) || '" and then a list. Reads "'
            || left(md5('y' || n), 12) || ' two fresh" of its ' || n %% 1000 || ' words.',
        true, 0.7 + (n %% 20) / 100.0, 0.4 + (n %% 30) / 100.0, 0.2, 'answer', n %% 10 < 7,
        CASE WHEN n %% 3 = 0 THEN '{{"register": "an answer", "area": "food", "topic": null, "kinds": [], "expects": null, "expects_agreement": null, "areas": {{"food": 0.8}}, "kind_scores": {{}}}}'::jsonb END,
        4, 0.02, 31.7, (1 + n %% 512) / 513.0, 512, at + interval '20 seconds', tenant,
        decode(md5('l' || n), 'hex')
    {_NUMBERED}
"""
_MATCHES: Final = f"""
    INSERT INTO concept_matches_{{day}} (explanation_id, captured_at, concept, matcher, score, tenant_id)
    SELECT md5('e' || n)::uuid, at, concept, 'regex', 1, tenant
    {_NUMBERED} JOIN LATERAL (VALUES
        ('food', n %% 20 = 0), ('rare', n %% 100000 = 17), ('self-harm', c %% 101 = 0)
    ) AS x (concept, is_match) ON is_match
"""
_FLAGGED: Final = f"""
    SELECT c, model, decoder, tenant, at {_NUMBERED} WHERE c %% 101 = 0 AND n %% {POSITIONS} = 0
"""
_FLAGS: Final = f"""
    INSERT INTO flags (id, model_id, decoder_id, capture_id, request_id, layer, concept, concepts_digest,
        severity, positions_matched, positions_required, positions_verified, first_captured_at,
        last_captured_at, created_at, updated_at, tenant_id, log_salt)
    SELECT md5('f' || c)::uuid, model, decoder, md5('c' || c)::uuid, 'chatcmpl-' || md5('r' || c), {LAYER},
        'self-harm', md5('concepts'), CASE WHEN c %% 1010 = 0 THEN 'critical' ELSE 'warning' END, 5, 3, 5, at,
        at + interval '1 minute', at + interval '1 minute', at + interval '1 minute', tenant,
        decode(md5('m' || c), 'hex')
    FROM ({_FLAGGED}) AS flagged
"""
_INCIDENTS: Final = f"""
    INSERT INTO incidents (id, model_id, decoder_id, capture_id, request_id, layer, severity, state, version,
        first_captured_at, last_captured_at, opened_at, updated_at, tenant_id)
    SELECT md5('i' || c)::uuid, model, decoder, md5('c' || c)::uuid, 'chatcmpl-' || md5('r' || c), {LAYER},
        CASE WHEN c %% 1010 = 0 THEN 'critical' ELSE 'warning' END,
        CASE WHEN c %% 707 = 0 THEN 'open' ELSE 'dismissed' END, 1, at, at + interval '1 minute',
        at + interval '1 minute', at + interval '1 minute', tenant
    FROM ({_FLAGGED}) AS flagged
"""
_EVENTS: Final = f"""
    INSERT INTO incident_events (id, incident_id, version, kind, at, to_state, severity, tenant_id)
    SELECT md5('v' || c)::uuid, md5('i' || c)::uuid, 1, 'opened', at + interval '1 minute', 'open', 'warning',
        tenant
    FROM ({_FLAGGED}) AS flagged
"""
_STATEMENTS: Final = (_SAMPLES, _NAMES, _EXPLANATIONS, _MATCHES, _FLAGS, _INCIDENTS, _EVENTS)
_ACCESS: Final = """
    INSERT INTO access_log (id, at, key_id, key_name, action, operation, subject_kind, subject_ids,
        subjects_total, purpose, status, result, tenant_id)
    SELECT md5('a' || %(base)s + n)::uuid, %(start)s + n * interval '43 seconds', md5('k' || n %% 20)::uuid,
        'auditor', CASE WHEN n %% 50 = 0 THEN 'export' ELSE 'read_text' END, 'list_explanations', 'explanation',
        ARRAY[md5('e' || %(base)s + n)::uuid, md5('e' || %(base)s + n + 1)::uuid], 2,
        CASE WHEN n %% 200 = 0 THEN 'subject_request' ELSE 'incident_response' END, 200, 'done', %(tenant)s
    FROM generate_series(0, 1999) AS n
"""
_WINDOW: Final = """
    INSERT INTO anomaly_windows (id, decoder_id, reference_digest, fdr, requests, discoveries, threshold,
        started_at, ended_at, closed_at, tenant_id)
    SELECT md5('w' || %(base)s)::uuid, decoder, md5('reference'), 0.1, 10000, 100, 0.01, %(start)s,
        %(start)s + interval '1 day', %(start)s + interval '1 day', %(tenant)s
    FROM bench.shares WHERE percent = 0
"""
_TESTS: Final = f"""
    INSERT INTO request_tests (id, window_id, model_id, decoder_id, capture_id, request_id, layer, p_value,
        q_value, rank, calibration_n, positions, row_p_values, is_discovery, first_captured_at,
        last_captured_at, tested_at, tenant_id)
    SELECT md5('d' || c)::uuid, md5('w' || %(base)s)::uuid, model, decoder, md5('c' || c)::uuid,
        'chatcmpl-' || md5('r' || c), {LAYER}, 0.001, 0.05, 1, 512, ARRAY[40], ARRAY[0.001], true, at, at, at,
        %(tenant)s
    FROM generate_series(0, 99) AS number
    CROSS JOIN LATERAL (
        SELECT %(base)s::bigint / {POSITIONS} + number * 100 AS c, %(start)s + number * interval '14 minutes' AS at
    ) AS tested
    JOIN bench.shares ON percent = 0
"""
_RECORDS: Final = (_ACCESS, _WINDOW, _TESTS)
"""Of a day, as `fill_records` stores them."""
