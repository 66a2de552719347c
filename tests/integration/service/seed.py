"""Rows as a worker stores them, for tests that read them back."""

import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.evidence.tombstones import Reason
from service.exports import files
from service.incidents.lifecycle import FindingKind
from service.retention import certificates, decisions, periods, placing
from service.retention.classes import RetentionClass
from service.store import keys
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope
from service.store.exports.tables import Export
from service.store.identity import DEFAULT_TENANT
from service.store.retention.tables import Decision, Records, RetentionRun
from service.store.tables import (
    ConceptMatch,
    CoverageMinute,
    Decoder,
    Explanation,
    Flag,
    Incident,
    Model,
    Sample,
)
from service.store.tenants import scope
from service.store.triage import Actor
from service.store.write import decoders, discoveries, incidents, names
from service.store.write.evidence import Finding
from service.store.write.flags import Subject
from service.store.write.window import NewTest, NewWindow, Untested
from subtext_sidecar.contract.subject import subject_key, tenant_secret

START = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
SECRET_TEXT = "THE-SECRET-READING"
SECRET_TOKEN = "THE-SECRET-TOKEN"
SECRET_TOKEN_ID = 987_654_321
SECRET_AREA = "THE-SECRET-AREA"
SECRET_PERSON = "the-secret-person@example.org"
SUBJECT_SECRET = b"0123456789abcdef" * 4
SUBJECT = subject_key(tenant_secret(SUBJECT_SECRET, DEFAULT_TENANT), SECRET_PERSON)
DECODER = decoders.NewDecoder(
    model="tiny",
    d_model=576,
    name="tiny-l20",
    digest="0" * 64,
    layer=20,
    fve_baseline=0.5,
    shuffled_fve_p95=0.02,
    calibration_n=512,
    card={"centred_fve": 0.41},
)
"""As a worker registers it."""
CLAIMS: dict[str, Any] = {
    "register": "an answer",
    "area": SECRET_AREA,
    "topic": None,
    "kinds": ["self-harm"],
    "expects": " to",
    "expects_agreement": 0.75,
    "areas": {SECRET_AREA: 0.8},
    "kind_scores": {"self-harm": 0.6},
}


def add_actor(session: Session, tenant: uuid.UUID = scope.DEFAULT_ID) -> Actor:
    """Make a key that nobody has the secret of."""
    key = keys.add_key(session, name="a key", secret_sha256=uuid.uuid4().bytes, scopes=[], tenant_id=tenant)
    return Actor(key.id, key.name)


def add_hold(session: Session, by: Actor | None = None, **criteria: Any) -> uuid.UUID:
    """Place a legal hold; the criteria are those of `placing.Scope`."""
    return placing.place(session, placing.Scope(**criteria), "a case", None, by or add_actor(session))


def add_certificate(session: Session, model: uuid.UUID | None = None) -> uuid.UUID:
    """Certify a removal that never was."""
    document = {"period_days": 400, "removed": {"explanations": 1}}
    return certificates.issue(
        session, reason=Reason.RETENTION, authority=uuid.uuid4(), document=document, model=model
    )


def add_period(
    session: Session,
    period_days: int | None,
    *,
    model: str | None = None,
    retention_class: RetentionClass = RetentionClass.CUSTOM,
    by: Actor | None = None,
    is_confirmed: bool = True,
    records: Records | None = None,
) -> uuid.UUID:
    """Set for how long rows are kept, from now on; unconfirmed a shorter period waits."""
    asked = periods.NewPeriod(
        model=model,
        records=records,
        retention_class=retention_class,
        period_days=period_days,
        reason="a duty",
    )
    version = periods.set_period(session, asked, by or add_actor(session)).version
    if is_confirmed and version.objectable_until is not None:
        confirm(session, decisions.Removal(version.id, "retention"), version.tenant_id)
    return version.id


def confirm(session: Session, removal: decisions.Removal, tenant: uuid.UUID = scope.DEFAULT_ID) -> None:
    """Let somebody else confirm an erasure or a period, so that it waits no longer."""
    decisions.decide(session, removal, Decision.CONFIRMED, "seen", add_actor(session, tenant))


def add_authority(session: Session) -> uuid.UUID:
    """Ask for an erasure and confirm it, as by what rows may go."""
    erasure = add_erasure(session)
    confirm(session, decisions.Removal(erasure, "erasure"), scope.tenant_of(session))
    return erasure


def add_run(session: Session, model: uuid.UUID) -> uuid.UUID:
    """Begin a retention run of what is older than a day."""
    version = add_period(session, 1)
    before = session.scalars(select(func.now())).one() - dt.timedelta(days=1)
    begun = RetentionRun(id=uuid.uuid4(), model_id=model, version_id=version, captured_before=before)
    session.add(begun)
    session.flush()
    return begun.id


class Audited(NamedTuple):
    model: Model
    decoder: Decoder


def capture_of(audited: Audited, request_id: str) -> uuid.UUID:
    """Return the capture of a request whose id no other has."""
    return uuid.uuid5(audited.model.id, request_id)


def add_model(session: Session, name: str = "tiny", layer: int = 20) -> Audited:
    model = Model(id=uuid.uuid4(), name=name, d_model=576)
    session.add(model)
    session.flush()
    return add_decoder(session, model, layer)


def add_decoder(session: Session, model: Model, layer: int) -> Audited:
    decoder = Decoder(
        id=uuid.uuid4(),
        model_id=model.id,
        name=f"{model.name}-l{layer}",
        digest=uuid.uuid4().hex,
        layer=layer,
        fve_baseline=0.49,
        shuffled_fve_p95=0.02,
        calibration_n=512,
        card={"centred_fve": 0.41},
        verified_above={"template": 0.3, "prompt": 0.2, "answer": 0.1},
        candidates=4,
    )
    session.add(decoder)
    session.flush()
    return Audited(model, decoder)


def add_explanation(
    session: Session,
    audited: Audited,
    *,
    request_id: str = "chat-1",
    request_names: Sequence[str] = (),
    capture_id: uuid.UUID | Literal["of request"] | None = "of request",
    position: int = 0,
    captured_at: dt.datetime = START,
    verified: bool = True,
    anomaly_score: float | None = 31.7,
    anomaly_p_value: float = 0.013,
    concept: str | None = None,
    claims: dict[str, Any] | None = None,
    text: str = SECRET_TEXT,
    trace_id: str | None = None,
    span_id: str | None = None,
    role: str | None = None,
    subject: str | None = None,
    baseline_probability: float = 0.125,
    stratum: str = "uniform",
) -> Explanation:
    if capture_id == "of request":
        capture_id = capture_of(audited, request_id)
    sample = Sample(
        id=uuid.uuid4(),
        model_id=audited.model.id,
        request_id=request_id,
        capture_id=capture_id,
        layer=audited.decoder.layer,
        position=position,
        token_id=SECRET_TOKEN_ID,
        token_text=SECRET_TOKEN,
        phase="decode",
        norm=241.3,
        stratum=stratum,
        trace_id=trace_id,
        span_id=span_id,
        role=role,
        subject=subject,
        inclusion_probability=max(0.25, baseline_probability),
        baseline_probability=baseline_probability,
        reason="decode",
        screen_scores={"anomaly": 31.7},
        captured_at=captured_at,
    )
    explanation = Explanation(
        id=uuid.uuid4(),
        sample_id=sample.id,
        decoder_id=audited.decoder.id,
        captured_at=captured_at,
        text=text,
        well_formed=True,
        cosine=0.87,
        fve=0.41 if verified else -0.1,
        fve_beyond_token=0.31 if verified else -0.2,
        position_class="answer",
        verified=verified,
        claims=claims,
        candidates=4,
        margin=0.02,
        anomaly_score=anomaly_score,
        anomaly_p_value=None if anomaly_score is None else anomaly_p_value,
        anomaly_calibration_n=None if anomaly_score is None else 512,
    )
    session.add(sample)
    session.flush()
    names.add_names(session, [names.NamedSample(sample, request_names)], audited.model.id)
    session.add(explanation)
    session.flush()
    if concept is not None:
        session.add(
            ConceptMatch(
                explanation_id=explanation.id,
                captured_at=explanation.captured_at,
                concept=concept,
                matcher="regex",
                score=1.0,
            )
        )
        session.flush()
    return explanation


def add_flag(
    session: Session,
    audited: Audited,
    *,
    request_id: str = "chat-1",
    capture_id: uuid.UUID | Literal["of request"] | None = "of request",
    concept: str = "deception",
    severity: str = "high",
    captured_at: dt.datetime = START,
    created_at: dt.datetime = START,
    concepts_digest: str = "0" * 64,
    false_positive_rate: float | None = None,
) -> Flag:
    if capture_id == "of request":
        capture_id = capture_of(audited, request_id)
    unsaved = Sample(request_id=request_id, capture_id=capture_id, captured_at=captured_at)
    names.add_names(session, [names.NamedSample(unsaved, ())], audited.model.id)
    flag = Flag(
        id=uuid.uuid4(),
        model_id=audited.model.id,
        decoder_id=audited.decoder.id,
        request_id=request_id,
        capture_id=capture_id,
        layer=audited.decoder.layer,
        concept=concept,
        concepts_digest=concepts_digest,
        severity=severity,
        positions_matched=3,
        positions_required=2,
        positions_verified=14,
        false_positive_rate=false_positive_rate,
        first_captured_at=captured_at,
        last_captured_at=captured_at + dt.timedelta(seconds=2),
        created_at=created_at,
    )
    session.add(flag)
    session.flush()
    return flag


def add_incident(session: Session, *flags: Flag, anomaly_p_value: float | None = 0.02) -> Incident:
    """Open the incident of flags on one capture, or let it grow by them."""
    first = flags[0]
    subject = Subject(first.model_id, first.decoder_id, first.capture_id, first.request_id, first.layer)
    findings = [
        Finding(
            FindingKind.FLAG,
            flag.concept,
            flag.severity,
            flag.first_captured_at,
            flag.last_captured_at,
            {
                "positions_matched": flag.positions_matched,
                "positions_required": flag.positions_required,
                "positions_verified": flag.positions_verified,
                "concepts_digest": flag.concepts_digest,
                "false_positive_rate": flag.false_positive_rate,
            },
        )
        for flag in flags
    ]
    [change] = incidents.record_findings(session, subject, findings, anomaly_p_value=anomaly_p_value)
    return session.get_one(Incident, change.id, populate_existing=True)


def add_erasure(session: Session) -> uuid.UUID:
    """Ask that a request be erased."""
    actor = Actor(uuid.UUID(int=9), "data protection")
    return requests.ask(session, ErasureScope.REQUEST, "somebody", actor)[0]


def add_window(
    session: Session,
    audited: Audited,
    discoveries_of: Sequence[str] = ("chat-1",),
    others: Sequence[str] = (),
    *,
    captured_at: dt.datetime = START,
    positions: Sequence[int] = (3, 4),
) -> None:
    """Store a window with the tests of these requests, and the incidents of its discoveries."""
    requests = [*discoveries_of, *others]
    tests = [
        NewTest(
            request=Untested(
                capture_of(audited, request_id),
                request_id,
                audited.decoder.layer,
                positions,
                [0.004] * len(positions),
                captured_at,
                captured_at + dt.timedelta(seconds=2),
            ),
            p_value=0.0004 if request_id in discoveries_of else 0.5,
            q_value=min(1.0, 0.0004 * len(requests)) if request_id in discoveries_of else 0.5,
            rank=number + 1,
            calibration_n=4851,
            positions=positions,
            row_p_values=[0.004] * len(positions),
            is_discovery=request_id in discoveries_of,
        )
        for number, request_id in enumerate(requests)
    ]
    for test in tests:
        unsaved = Sample(
            request_id=test.request.request_id,
            capture_id=test.request.capture_id,
            captured_at=captured_at,
        )
        names.add_names(session, [names.NamedSample(unsaved, ())], audited.model.id)
    window = NewWindow("ab" * 32, 0.1, 0.0004 if discoveries_of else None, captured_at, tests)
    reader = discoveries.Reader(audited.model.id, audited.decoder.id)
    discoveries.store_windows(session, reader, [window], anomaly_p_value=0.001)


def add_coverage(
    session: Session,
    *,
    hop: str,
    minute: dt.datetime = START,
    model: str = "tiny",
    source: str = "s",
    stratum: str = "uniform",
    **counts: int,
) -> None:
    session.add_all(
        CoverageMinute(
            minute=minute,
            source=source,
            hop=hop,
            model=model,
            stratum=stratum,
            counter=counter,
            count=count,
        )
        for counter, count in counts.items()
    )
    session.flush()


def add_export(session: Session, folder: Path | None = None) -> Export:
    """Add an export that is ready; with a folder, also a file, which is no bundle."""
    content = b"a file"
    made = Export(
        id=uuid.uuid4(),
        state="ready",
        kinds=["flags"],
        period_start=START,
        period_end=START + dt.timedelta(hours=1),
        with_text=False,
        key_id=uuid.uuid4(),
        key_name="auditor",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        expires_at=dt.datetime(2100, 1, 1, tzinfo=dt.UTC),
    )
    session.add(made)
    session.flush()
    if folder is not None:
        path = files.path_of(folder, made.tenant_id, made.id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return made
