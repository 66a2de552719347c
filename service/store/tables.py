"""The tables: the contract between the worker that writes and the service that reads.

Columns carry units in their names. Every id that a redelivery could meet again is a UUIDv5 of
what it identifies, so inserts are idempotent. Times are UTC.
"""

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base as Base  # noqa: PLC0414  # with the tables comes what they are of
from service.store.base import OfTenant
from service.store.tenants.scope import COLUMN_DEFAULT
from service.store.tenants.tables import Tenant
from subtext_sidecar.contract.counters import Hop, WorkerCounter

BY_DAY: Final = {"postgresql_partition_by": "RANGE (captured_at)"}
"""Of a table that grows with traffic: a partition a day, see `service.store.partitions`."""
MAX_INDEXED_P_VALUE: Final = 0.05
"""Readings of states as strange as that are found without reading all of them."""
SEARCHED_CHARACTERS: Final = 16_384
"""Of a text, from its beginning: PostgreSQL refuses a row whose words take over 1 MB."""
INDEXED_WORDS: Final = f"to_tsvector('simple'::regconfig, \"left\"(text, {SEARCHED_CHARACTERS}))"


class Model(Base):
    """An audited model of one tenant, by the name that it is served under."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of name and tenant
    name: Mapped[str]
    d_model: Mapped[int]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), server_default=COLUMN_DEFAULT)


class Decoder(OfTenant, Base):
    """An NLA pair at one version, with the calibration that its verdicts stand on."""

    __tablename__ = "decoders"
    __table_args__ = (
        CheckConstraint("candidates >= 1", name="candidates"),
        UniqueConstraint("tenant_id", "digest"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of digest and tenant
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"), index=True)
    name: Mapped[str]
    digest: Mapped[str]  # SHA-256 over weights, meta and calibration
    layer: Mapped[int]
    fve_baseline: Mapped[float]  # mean-predictor error on unit vectors: 1 - |mean|^2
    shuffled_fve_p95: Mapped[float]  # of the FVE; without verified_above, what readings had to exceed
    # By position class, what a reading must exceed; None for a decoder of before there were any.
    verified_above: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    candidates: Mapped[int] = mapped_column(
        default=1
    )  # readings written of each vector; the best one is kept
    calibration_n: Mapped[int]  # readings that the calibration stands on
    card: Mapped[dict[str, Any]]  # measured figures, as in the model card
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log
    log_trail: Mapped[list[bytes] | None] = mapped_column(ARRAY(BYTEA))  # its earlier entries' commitments


class Sample(OfTenant, Base):
    """An activation that was chosen, with the probability that it was."""

    __tablename__ = "samples"
    __table_args__ = (
        CheckConstraint("inclusion_probability > 0 AND inclusion_probability <= 1", name="probability"),
        CheckConstraint(
            "baseline_probability >= 0 AND baseline_probability <= inclusion_probability",
            name="baseline_probability",
        ),
        Index("ix_samples_request_id", "request_id"),
        Index("ix_samples_capture_id", "capture_id", postgresql_where=text("capture_id IS NOT NULL")),
        Index(
            "ix_samples_trace_id_captured_at_id",
            "trace_id",
            "captured_at",
            "id",
            postgresql_where=text("trace_id IS NOT NULL"),
        ),
        Index("ix_samples_captured_at_id", "captured_at", "id"),
        Index("ix_samples_model_id_captured_at", "model_id", "captured_at"),  # pages of one model
        Index(
            "ix_samples_tenant_id_subject_captured_at_id",
            "tenant_id",
            "subject",
            "captured_at",
            "id",
            postgresql_where=text("subject IS NOT NULL"),
        ),
        BY_DAY,
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # subtext_sidecar.contract.record.sample_id
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    capture_id: Mapped[uuid.UUID | None]  # the plugin's own; None: stored before captures had one
    request_id: Mapped[str]  # as its client said: to look up by, never an identity
    layer: Mapped[int]
    position: Mapped[int]
    token_id: Mapped[int]
    token_text: Mapped[str]  # as personal as the prompt: scoped like explanation text
    phase: Mapped[str]
    norm: Mapped[float]
    stratum: Mapped[str]  # of the request: Stratum.UNIFORM | OPT_IN
    trace_id: Mapped[str | None]  # of the request, as its client said: 32 hexadecimal digits
    span_id: Mapped[str | None]  # of the caller's span, 16
    role: Mapped[str | None]  # of the engine: prefill | decode; None: it served the whole request
    inclusion_probability: Mapped[float]  # by whatever reason
    baseline_probability: Mapped[float]  # by the random baseline alone; 0 when only the screen chose it
    reason: Mapped[str]
    screen_scores: Mapped[dict[str, Any]]  # what the screen measured, by detector
    captured_at: Mapped[dt.datetime] = mapped_column(primary_key=True)  # by the engine's clock
    stored_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    # Of the engine that took it, a ConfigurationVersion; None: it named none, as engines of before.
    configuration_id: Mapped[int | None]
    # Whose data the request is, by subtext_sidecar.contract.subject: 32 digits; None: it named nobody.
    subject: Mapped[str | None]


class RequestName(OfTenant, Base):
    """A name that a capture is looked up by: its request's id, or what else its client may have sent.

    Clients choose names, so one may be of any number of captures. Nothing is counted or judged by them.
    """

    __tablename__ = "request_names"
    __table_args__ = (
        # Pages follow captured_at, which never changes once it is stored.
        Index("ix_request_names_name_captured_at_capture", "name", "captured_at", "capture"),
        BY_DAY,
    )

    name: Mapped[str] = mapped_column(primary_key=True)  # as subtext_sidecar.contract.request_id bounds it
    capture: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # identity.capture_key
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    capture_id: Mapped[uuid.UUID | None]
    request_id: Mapped[str]
    # Of the first sample that was stored, not of the earliest.
    captured_at: Mapped[dt.datetime] = mapped_column(primary_key=True)


class Explanation(OfTenant, Base):
    """What one decoder said about one sample: a hypothesis with its fidelity, never a fact."""

    __tablename__ = "explanations"
    __table_args__ = (
        UniqueConstraint("sample_id", "decoder_id", "captured_at"),
        CheckConstraint("position_class IN ('template', 'prompt', 'answer')", name="position_class"),
        CheckConstraint("candidates >= 1", name="candidates"),
        Index("ix_explanations_captured_at_id", "captured_at", "id"),  # of workers, for all tenants
        Index("ix_explanations_tenant_id_captured_at_id", "tenant_id", "captured_at", "id"),
        Index("ix_explanations_decoder_id_captured_at_id", "decoder_id", "captured_at", "id"),
        Index("ix_explanations_words", text(INDEXED_WORDS), postgresql_using="gin"),
        Index(
            "ix_explanations_anomalous",
            "tenant_id",
            "captured_at",
            "id",
            "anomaly_p_value",
            postgresql_where=text(f"anomaly_p_value <= {MAX_INDEXED_P_VALUE}"),
        ),
        BY_DAY,
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of sample and decoder
    # Of the sample with the same time. No constraint says so: it could not be dropped before this row.
    sample_id: Mapped[uuid.UUID]
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"))
    captured_at: Mapped[dt.datetime] = mapped_column(primary_key=True)  # copy of the sample's
    text: Mapped[str]
    well_formed: Mapped[bool]  # the decoder kept its output format
    cosine: Mapped[float]
    fve: Mapped[float]  # 1 - |u - u_hat|^2 / fve_baseline on unit vectors
    fve_beyond_token: Mapped[float | None]  # of what the token's mean leaves open; None: no token means
    position_class: Mapped[str]  # template | prompt | answer: verified against readings of the same
    verified: Mapped[bool]  # at least above decoders.verified_above, by a decoder that was trusted
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # as personal as text
    candidates: Mapped[int] = mapped_column(default=1)  # of which `text` rebuilds the vector best
    margin: Mapped[float | None]  # its cosine less the second best's; None for a single one
    anomaly_score: Mapped[float | None]
    anomaly_p_value: Mapped[float | None]  # conformal, floor 1 / (anomaly_calibration_n + 1)
    anomaly_calibration_n: Mapped[int | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    # Of the worker that read it, a ConfigurationVersion; None: stored by a worker of before.
    configuration_id: Mapped[int | None]
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class ConceptMatch(OfTenant, Base):
    """One explanation that matched one concept. A match alone is no flag."""

    __tablename__ = "concept_matches"
    __table_args__ = (
        Index("ix_concept_matches_page", "tenant_id", "concept", "captured_at", "explanation_id"),
        BY_DAY,
    )

    explanation_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # of the same time, as a sample's
    concept: Mapped[str] = mapped_column(primary_key=True)
    # Copy of the explanation's. The default refuses rows without one, as of a worker of before.
    captured_at: Mapped[dt.datetime] = mapped_column(
        primary_key=True, server_default=text("subtext_no_time()")
    )
    matcher: Mapped[str]  # regex | semantic | claim | probe
    score: Mapped[float]
    concept_digest: Mapped[str | None]  # of the definition that matched; null: from before it was kept


class ConceptVersion(Base):
    """What a concept's name stood for. A definition that was used never changes.

    It belongs to no tenant: it is kept by its content, once for all, and read by whom `ModelConcept` says
    that he uses it.
    """

    __tablename__ = "concept_versions"

    digest: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the definition
    name: Mapped[str]
    # None: of a file of version 1, whose definitions may change freely. `ModelConcept` says whose it was.
    version: Mapped[int | None]
    definition: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class ModelConcept(OfTenant, Base):
    """A definition that a model was watched for: name and version are each model's own."""

    __tablename__ = "model_concepts"
    __table_args__ = (UniqueConstraint("model_id", "name", "version"),)

    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("concept_versions.digest"), primary_key=True)
    name: Mapped[str]
    version: Mapped[int | None]  # as in ConceptVersion
    used_since: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class FlagStatus(StrEnum):
    """Whether a flag's false-positive rate is known."""

    LEAD = "lead"
    CALIBRATED = "calibrated"


class Flag(OfTenant, Base):
    """A concept found on a request at enough positions of verified explanations."""

    __tablename__ = "flags"
    __table_args__ = (
        CheckConstraint("status IN ('lead', 'calibrated')", name="status"),
        CheckConstraint(
            "status = 'lead' OR (false_positive_rate IS NOT NULL AND false_positive_rate_upper IS NOT NULL"
            " AND calibration_requests IS NOT NULL AND calibration_digest IS NOT NULL)",
            name="calibrated",
        ),
        # Pages follow created_at, which never changes: last_captured_at moves while a reader pages.
        Index("ix_flags_created_at_id", "created_at", "id"),
        Index("ix_flags_concept_created_at_id", "concept", "created_at", "id"),
        Index("ix_flags_last_captured_at", "last_captured_at"),
        Index("ix_flags_request_id", "request_id"),
        Index("ix_flags_capture_id", "capture_id", postgresql_where=text("capture_id IS NOT NULL")),
    )

    # UUIDv5 of model, decoder, capture, layer and concept, so that there is one of each
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"))
    capture_id: Mapped[uuid.UUID | None]  # None: raised before captures had an identity
    request_id: Mapped[str]
    layer: Mapped[int]
    concept: Mapped[str]
    concepts_digest: Mapped[str]  # SHA-256 of the concepts.yaml in force
    concept_version: Mapped[int | None]  # None: as in ConceptVersion, or raised before there were any
    concept_digest: Mapped[str | None]  # of ConceptVersion; None: raised before there were any
    severity: Mapped[str]
    positions_matched: Mapped[int]
    positions_required: Mapped[int]
    positions_verified: Mapped[int]  # denominator: verified positions of this request so far
    status: Mapped[str] = mapped_column(server_default=text("'lead'"))  # a FlagStatus
    false_positive_rate: Mapped[float | None]  # share of benign requests with this flag; None for a lead
    false_positive_rate_upper: Mapped[float | None]  # its upper limit, one-sided 95%
    calibration_requests: Mapped[int | None]  # benign requests behind the rate
    calibration_digest: Mapped[str | None]  # SHA-256 of the concept calibration in force
    first_captured_at: Mapped[dt.datetime]
    last_captured_at: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[dt.datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log
    log_trail: Mapped[list[bytes] | None] = mapped_column(ARRAY(BYTEA))  # its earlier entries' commitments


QUEUE_RANK: Final = "COALESCE(array_position(ARRAY['critical', 'warning', 'info'], severity), 4)"
"""SQL: an incident's place in the queue by its severity, from 1, the highest first."""
IS_UNDECIDED: Final = "state IN ('open', 'acknowledged')"
"""SQL: nobody has decided on the incident."""


class OfAssignee:
    """Mixed into tables that name who looks at an incident: a key, or a person; all None: nobody does."""

    # After a table's own columns.
    assignee_key_id: Mapped[uuid.UUID | None] = mapped_column(sort_order=900)
    assignee_key_name: Mapped[str | None] = mapped_column(sort_order=900)  # as it was then
    assignee_issuer: Mapped[str | None] = mapped_column(sort_order=900)
    assignee_person: Mapped[str | None] = mapped_column(sort_order=900)  # the issuer's `sub`


class Incident(OfAssignee, OfTenant, Base):
    """All that one decoder found on one capture at one layer, and where its triage stands.

    Its evidence is not listed here: flags and samples are found by their capture. A trigger refuses the
    verdict of one reviewer where a flagged concept asks for two.
    """

    __tablename__ = "incidents"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'acknowledged', 'confirmed', 'dismissed')", name="state"),
        CheckConstraint("version >= 1", name="version"),
        # Pages follow opened_at, which never changes.
        Index("ix_incidents_opened_at_id", "opened_at", "id"),
        Index("ix_incidents_state_opened_at_id", "state", "opened_at", "id"),
        Index("ix_incidents_request_id", "request_id"),
        Index("ix_incidents_capture_id", "capture_id", postgresql_where=text("capture_id IS NOT NULL")),
        Index(
            "ix_incidents_queue", text(QUEUE_RANK), "opened_at", "id", postgresql_where=text(IS_UNDECIDED)
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of model, capture, layer and decoder
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"))
    capture_id: Mapped[uuid.UUID | None]  # None: of samples from before captures had an identity
    request_id: Mapped[str]
    layer: Mapped[int]
    severity: Mapped[str]  # the highest of its findings
    state: Mapped[str]  # service.incidents.lifecycle.State
    version: Mapped[int]  # counts its events: whoever changes the state names the version that was read
    # What triage said of each concept while the state is confirmed or dismissed: true or false.
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    anomaly_p_value: Mapped[float | None]  # positions with a p-value at or below it belong to the evidence
    first_captured_at: Mapped[dt.datetime]
    last_captured_at: Mapped[dt.datetime]
    opened_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class IncidentEvent(OfAssignee, OfTenant, Base):
    """What happened to an incident, one row a version; rows are only ever added."""

    __tablename__ = "incident_events"
    __table_args__ = (
        UniqueConstraint("incident_id", "version"),
        CheckConstraint(
            "CASE WHEN proposed_state IS NULL THEN proposal IS NULL OR proposal < version"
            " ELSE kind = 'proposed' AND proposed_state IN ('confirmed', 'dismissed')"
            " AND proposal IS NOT DISTINCT FROM version END",
            name="proposed",
        ),
        # One key says one thing of a proposal, in whichever session, and so does one person.
        Index(
            "uq_incident_events_proposal_key",
            *("incident_id", "proposal", "key_id"),
            unique=True,
            postgresql_where=text("proposal IS NOT NULL"),
        ),
        Index(
            "uq_incident_events_proposal_person",
            *("incident_id", "proposal", "issuer", "person"),
            unique=True,
            postgresql_where=text("proposal IS NOT NULL"),
        ),
        Index("ix_incident_events_at_id", "at", "id"),  # pages
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of incident and version
    incident_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("incidents.id"))
    version: Mapped[int]  # of the incident after it
    kind: Mapped[str]  # service.incidents.lifecycle.EventKind
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))  # None: the system itself
    key_name: Mapped[str | None]  # as it was then
    session_id: Mapped[uuid.UUID | None]  # in which it was done; None: by a key without one, or the system
    issuer: Mapped[str | None]  # of the person
    person: Mapped[str | None]  # who signed in, as the issuer calls him; None: a key, or the system
    from_state: Mapped[str | None]  # None: it was opened
    to_state: Mapped[str]
    severity: Mapped[str]  # of the incident after it
    reason: Mapped[str | None]  # service.incidents.lifecycle.Reason; None: the system's events
    note: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  # given with it
    # New ones, with their figures at that moment; of the system's events alone.
    findings: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    proposed_state: Mapped[str | None]  # that a second reviewer has to agree with; of a proposal alone
    # Of a proposal its own version, of the verdict that agrees with one the proposal's.
    proposal: Mapped[int | None]
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class AnomalyWindow(OfTenant, Base):
    """Requests that were tested together for being anomalies; the false discovery rate is theirs."""

    __tablename__ = "anomaly_windows"
    __table_args__ = (
        CheckConstraint("fdr > 0 AND fdr < 1", name="fdr"),
        CheckConstraint("discoveries >= 0 AND discoveries <= requests", name="discoveries"),
        Index("ix_anomaly_windows_decoder_id_closed_at", "decoder_id", "closed_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"))
    reference_digest: Mapped[str]  # SHA-256 of the anomaly reference that the requests were ranked by
    fdr: Mapped[float]  # accepted share of false ones among the discoveries, on average
    requests: Mapped[int]  # tested in it: the denominator
    discoveries: Mapped[int]
    threshold: Mapped[float | None]  # largest p-value that was a discovery; None without one
    started_at: Mapped[dt.datetime]  # first capture of its first request; `ended_at`: of its last one
    ended_at: Mapped[dt.datetime]
    closed_at: Mapped[dt.datetime]  # when its requests were tested


class RequestTest(OfTenant, Base):
    """Whether one capture, at one layer, is an anomaly among the requests of its window. Tested once."""

    __tablename__ = "request_tests"
    __table_args__ = (
        UniqueConstraint("capture_id", "model_id", "decoder_id", "layer"),
        CheckConstraint("p_value > 0 AND p_value <= 1", name="p_value"),
        CheckConstraint("q_value > 0 AND q_value <= 1", name="q_value"),
        CheckConstraint("cardinality(positions) = cardinality(row_p_values)", name="rows"),
        Index("ix_request_tests_window_id", "window_id"),
        # Pages of discoveries follow tested_at, which never changes.
        Index("ix_request_tests_discoveries", "tested_at", "id", postgresql_where=text("is_discovery")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv5 of model, capture, layer and decoder
    window_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("anomaly_windows.id"))
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"))
    capture_id: Mapped[uuid.UUID]
    request_id: Mapped[str]
    layer: Mapped[int]
    p_value: Mapped[float]  # conformal, never below 1 - 0.1 ** (2 / calibration_n)
    q_value: Mapped[float]  # the smallest rate at which it would be a discovery of its window
    rank: Mapped[int]  # place of its p-value in the window, the smallest first; equal ones share the last
    calibration_n: Mapped[int]  # benign requests that it was ranked among
    positions: Mapped[list[int]] = mapped_column(ARRAY(Integer))  # that it was tested by
    row_p_values: Mapped[list[float]] = mapped_column(ARRAY(Double))  # theirs, in the same order
    is_discovery: Mapped[bool]
    first_captured_at: Mapped[dt.datetime]
    last_captured_at: Mapped[dt.datetime]
    tested_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class WebhookMessage(OfTenant, Base):
    """An incident event to tell the webhooks, stored in the transaction of the event."""

    __tablename__ = "webhook_messages"
    __table_args__ = (Index("ix_webhook_messages_created_at", "created_at"),)

    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("incident_events.id"), primary_key=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(OfTenant, Base):
    """One message on its way to one destination."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        Index(
            "ix_webhook_deliveries_destination_priority_next_attempt_at",
            "destination",
            "priority",
            "next_attempt_at",
            postgresql_where=text("state = 'pending'"),
        ),
    )

    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("webhook_messages.event_id"), primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)  # its name; URLs may hold secrets
    state: Mapped[str]
    attempts: Mapped[int]  # begun, so that a sender that died counts too
    # The lowest goes first; 0 also for what a service of before stored, which may be as urgent.
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    next_attempt_at: Mapped[dt.datetime]  # of a first one: of the event; while somebody sends: of the next
    last_error: Mapped[str | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[dt.datetime | None]  # delivered or given up


class CoverageMinute(Base):
    """What one source counted in one minute, by stratum.

    Rows count in the minute of their capture at every hop, so that hops can be compared minute by
    minute. Plugin and sidecar send cumulative counts, of which the largest is kept; a worker adds
    to its own in the transaction that stores what it counts.
    """

    __tablename__ = "coverage_minutes"
    __table_args__ = (
        Index("ix_coverage_minutes_minute", "minute"),
        # How far the workers have come, by model.
        Index(
            "ix_coverage_minutes_consumed",
            "model",
            "minute",
            postgresql_where=text(f"hop = '{Hop.WORKER}' AND counter = '{WorkerCounter.ROWS_CONSUMED}'"),
        ),
    )

    # One source may count for several tenants. By this one first, so that its minutes lie together.
    tenant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=COLUMN_DEFAULT)
    minute: Mapped[dt.datetime] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    hop: Mapped[str] = mapped_column(primary_key=True)  # a Hop
    model: Mapped[str] = mapped_column(primary_key=True)
    stratum: Mapped[str] = mapped_column(primary_key=True)  # a Stratum
    counter: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class CanaryReading(OfTenant, Base):
    """What one decoder said about one sample of a canary: evidence of the pipeline, never of traffic."""

    __tablename__ = "canary_readings"

    sample_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # as of `Sample`, which has no such row
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"), primary_key=True)
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("models.id"))
    nonce: Mapped[str] = mapped_column(index=True)  # by which its runner knows it
    capture_id: Mapped[uuid.UUID] = mapped_column(index=True)
    layer: Mapped[int]
    position: Mapped[int]
    captured_at: Mapped[dt.datetime]
    text: Mapped[str]
    fve: Mapped[float]
    verified: Mapped[bool]
    concepts: Mapped[list[str]] = mapped_column(ARRAY(Text))  # that the text matches
    positions_needed: Mapped[int | None]  # of a capture, for no flag to mean anything; null: from before
    stored_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class CanaryFlag(OfTenant, Base):
    """A concept that the rule of flags found on a canary. It is no flag: nobody is told of it."""

    __tablename__ = "canary_flags"
    __table_args__ = (CheckConstraint("status IN ('lead', 'calibrated')", name="status"),)

    capture_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    decoder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("decoders.id"), primary_key=True)
    concept: Mapped[str] = mapped_column(primary_key=True)
    nonce: Mapped[str] = mapped_column(index=True)
    positions_matched: Mapped[int]  # when it was found first
    positions_required: Mapped[int]
    status: Mapped[str]  # a FlagStatus: what a flag of traffic would be
    rule_is_calibrated: Mapped[bool]  # had a rate, or a void one; this may be a lead
    stored_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """An API key: only its SHA-256 is kept, the secret is shown once."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret_sha256: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    role: Mapped[str | None]  # service.auth.Role that gave the scopes; None: they were given one by one
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # served names; None: all of the tenant
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Tenant.id), server_default=COLUMN_DEFAULT)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]
    last_used_at: Mapped[dt.datetime | None]
    # The first of its line, by a key of which it was made over REST: all of a line are one identity where
    # two are needed. None: an owner made it.
    made_from: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    # That key itself, with which it is revoked. None: an owner made it, or a service of before did.
    made_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
