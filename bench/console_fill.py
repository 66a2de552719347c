"""What bench-console stores beside explanations: counts of coverage, rates of flags, a long request."""
# ruff: noqa: S608, E501  # SQL of our own tables, a column list a line

import datetime as dt
import uuid
from typing import Any, Final

import psycopg

from bench.store_fill import LAYER, Shape
from service.store.identity import tenant_id
from subtext_sidecar.contract.counters import (
    Hop,
    PluginCounter,
    SidecarCounter,
    Stratum,
    WorkerCounter,
)

LONG_REQUEST: Final = "chatcmpl-of-many-tokens"
MODELS: Final = ("chat", "search")
"""That are counted."""
_LONG_CAPTURE: Final = uuid.uuid5(uuid.NAMESPACE_URL, LONG_REQUEST)
LONG_ADDRESS: Final = f"requests/{LONG_REQUEST}?capture={_LONG_CAPTURE}&model={MODELS[0]}&layer={LAYER}"
"""Of the request's page, as every alert, incident and reading links to it."""
_COUNTS: Final = (  # of one source in one minute; what comes in goes out, as the equations have it
    (Hop.PLUGIN, PluginCounter.REQUESTS_SEEN, 600),
    (Hop.PLUGIN, PluginCounter.REQUESTS_SAMPLED, 60),
    (Hop.PLUGIN, PluginCounter.ROWS_SAMPLED, 480),
    (Hop.PLUGIN, PluginCounter.ROWS_HANDED_OVER, 478),
    (Hop.PLUGIN, PluginCounter.DROPPED_BUDGET, 2),
    (Hop.SIDECAR, SidecarCounter.ROWS_RECEIVED, 478),
    (Hop.SIDECAR, SidecarCounter.THINNED, 8),
    (Hop.SIDECAR, SidecarCounter.ROWS_SHIPPED, 470),
    (Hop.WORKER, WorkerCounter.ROWS_CONSUMED, 470),
    (Hop.WORKER, WorkerCounter.ROWS_DECODED, 469),
    (Hop.WORKER, WorkerCounter.ROWS_DUPLICATE, 1),
)
_SOURCES: Final = 2  # of each hop
_CONCEPT: Final = "self-harm"


def fill(connection: psycopg.Connection[Any], shape: Shape, positions: int, now: dt.datetime) -> None:
    """Count every minute of the shape's days up to now, calibrate flags, and add the long request."""
    with connection.transaction():
        connection.execute("SET LOCAL timezone = 'UTC'")
        _count_minutes(connection, shape, now)
        _calibrate(connection)
        _add_long_request(connection, positions, now - dt.timedelta(minutes=5))
    for table in ("coverage_minutes", "flags", "incidents", "samples", "explanations", "concept_matches"):
        connection.execute(f"VACUUM ANALYZE {table}".encode())


def _count_minutes(connection: psycopg.Connection[Any], shape: Shape, now: dt.datetime) -> None:
    values = {
        "tenant": tenant_id("default"),
        "start": dt.datetime.combine(shape.first, dt.time(), dt.UTC),
        "end": now.replace(second=0, microsecond=0),
        "sources": _SOURCES,
        "models": list(MODELS),
        "stratum": str(Stratum.UNIFORM),
        "hops": [str(hop) for hop, _, _ in _COUNTS],
        "counters": [str(counter) for _, counter, _ in _COUNTS],
        "counts": [count for _, _, count in _COUNTS],
    }
    connection.execute(
        """
        INSERT INTO coverage_minutes (tenant_id, minute, source, hop, model, stratum, counter, count)
        SELECT %(tenant)s, minute, hop || '-' || source, hop, model, %(stratum)s, counter, count
        FROM generate_series(%(start)s::timestamptz, %(end)s, interval '1 minute') AS minute
        CROSS JOIN generate_series(1, %(sources)s::int) AS source
        CROSS JOIN unnest(%(models)s::text[]) AS model
        CROSS JOIN unnest(%(hops)s::text[], %(counters)s::text[], %(counts)s::bigint[])
            AS counted (hop, counter, count)
        ON CONFLICT DO NOTHING
        """,
        values,
    )


def _calibrate(connection: psycopg.Connection[Any]) -> None:
    """Let the concept have a version that models are watched for, and its flags a rate."""
    digest = uuid.uuid5(uuid.NAMESPACE_URL, _CONCEPT).hex * 2
    connection.execute(
        "INSERT INTO concept_versions (digest, name, version, definition)"
        ' VALUES (%s, %s, 1, \'{"patterns": ["harm"]}\') ON CONFLICT DO NOTHING',
        [digest, _CONCEPT],
    )
    connection.execute(
        "INSERT INTO model_concepts (model_id, digest, name, version, tenant_id)"
        " SELECT id, %s, %s, 1, tenant_id FROM models ON CONFLICT DO NOTHING",
        [digest, _CONCEPT],
    )
    connection.execute(
        "UPDATE flags SET concept_digest = %s, concept_version = 1, status = 'calibrated',"
        " false_positive_rate = 0.002, false_positive_rate_upper = 0.008, calibration_requests = 2000,"
        " calibration_digest = md5('calibration') WHERE concept = %s AND concept_digest IS NULL",
        [digest, _CONCEPT],
    )


def _add_long_request(connection: psycopg.Connection[Any], positions: int, at: dt.datetime) -> None:
    model, decoder, tenant = connection.execute(
        "SELECT models.id, decoders.id, models.tenant_id FROM models JOIN decoders ON model_id = models.id"
        " WHERE models.tenant_id = %s AND models.name = %s",
        [tenant_id("default"), MODELS[0]],
    ).fetchone() or (None, None, None)
    values = {
        "model": model,
        "decoder": decoder,
        "tenant": tenant,
        "capture": _LONG_CAPTURE,
        "request": LONG_REQUEST,
        "positions": positions,
        "at": at,
        "concept": _CONCEPT,
    }
    if connection.execute(
        "SELECT 1 FROM request_names WHERE name = %(request)s AND tenant_id = %(tenant)s", values
    ).fetchone():
        return
    for statement in (_SAMPLES, _NAME, _EXPLANATIONS, _MATCHES, _FLAG, _INCIDENT, _EVENT):
        connection.execute(statement.encode(), values)


_POSITIONS: Final = """
    FROM generate_series(0, %(positions)s::int - 1) AS n
    CROSS JOIN LATERAL (SELECT %(at)s::timestamptz + n * interval '5 milliseconds' AS at) AS moment
"""
_SAMPLES: Final = f"""
    INSERT INTO samples (id, model_id, capture_id, request_id, layer, position, token_id, token_text, phase,
        norm, stratum, inclusion_probability, baseline_probability, reason, screen_scores, captured_at,
        stored_at, tenant_id)
    SELECT md5('ls' || n)::uuid, %(model)s, %(capture)s, %(request)s, {LAYER}, n, n %% 49152,
        (ARRAY[' the', ' train', 'ing', ', ', ' a', ' longer', ' word', E'\\n', ' élan', ' of'])[1 + n * 7 %% 10],
        'decode', 200 + n %% 80, 'uniform', 1, 1, 'decode', '{{"anomaly": 31.7}}', at,
        at + interval '20 seconds', %(tenant)s
    {_POSITIONS}
"""
_NAME: Final = """
    INSERT INTO request_names (name, capture, model_id, capture_id, request_id, captured_at, tenant_id)
    VALUES (%(request)s, %(capture)s, %(model)s, %(capture)s, %(request)s, %(at)s, %(tenant)s)
"""
_EXPLANATIONS: Final = f"""
    INSERT INTO explanations (id, sample_id, decoder_id, captured_at, text, well_formed, cosine, fve,
        fve_beyond_token, position_class, verified, candidates, margin, anomaly_score, anomaly_p_value,
        anomaly_calibration_n, created_at, tenant_id, log_salt)
    SELECT md5('le' || n)::uuid, md5('ls' || n)::uuid, %(decoder)s, at,
        'An answer about travel by train, in step ' || n || '. Expects "' || left(md5('lx' || n), 8) || '".',
        true, 0.7 + (n %% 20) / 100.0, 0.4 + (n %% 30) / 100.0, 0.2, 'answer', n %% 10 < 7, 4, 0.02, 31.7,
        (1 + n %% 512) / 513.0, 512, at + interval '20 seconds', %(tenant)s, decode(md5('ll' || n), 'hex')
    {_POSITIONS}
"""
_MATCHES: Final = f"""
    INSERT INTO concept_matches (explanation_id, captured_at, concept, matcher, score, tenant_id)
    SELECT md5('le' || n)::uuid, at, %(concept)s, 'regex', 1, %(tenant)s
    {_POSITIONS} WHERE n %% 40 = 7
"""
_FLAG: Final = f"""
    INSERT INTO flags (id, model_id, decoder_id, capture_id, request_id, layer, concept, concepts_digest,
        severity, positions_matched, positions_required, positions_verified, first_captured_at,
        last_captured_at, tenant_id, log_salt)
    VALUES (md5('lf')::uuid, %(model)s, %(decoder)s, %(capture)s, %(request)s, {LAYER}, %(concept)s,
        md5('concepts'), 'critical', 200, 3, 5600, %(at)s, %(at)s, %(tenant)s, decode(md5('lm'), 'hex'))
"""
_INCIDENT: Final = f"""
    INSERT INTO incidents (id, model_id, decoder_id, capture_id, request_id, layer, severity, state, version,
        first_captured_at, last_captured_at, tenant_id)
    VALUES (md5('li')::uuid, %(model)s, %(decoder)s, %(capture)s, %(request)s, {LAYER}, 'critical', 'open', 1,
        %(at)s, %(at)s, %(tenant)s)
"""
_EVENT: Final = """
    INSERT INTO incident_events (id, incident_id, version, kind, to_state, severity, tenant_id)
    VALUES (md5('lv')::uuid, md5('li')::uuid, 1, 'opened', 'open', 'critical', %(tenant)s)
"""
