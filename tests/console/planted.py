"""Requests as a worker stores them, many positions at once, for pages that show them."""

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.store.canary import runs
from service.store.canary.runs import NewRun
from service.store.configuration import write
from service.store.configuration.write import Report
from service.store.tables import ConceptMatch, Explanation, Sample
from service.store.write import names
from service.store.write.concepts import NewConcept, register_concepts
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed

CARD: Final = Path(__file__).resolve().parents[2] / "deploy" / "decoders" / "smollm2-135m-l23"
READING: Final = "The text asks for first aid and says that nothing happened."
CONCEPT: Final = "deception"
LONG: Final = "<b>a request</b>\u202e" + "of-a-long-name-" * 12
WORDS = (" the", " patient", " should", " take", "\n", " two", " doses", " of", "\t", " sum", " pills", ".")


class Spoken(NamedTuple):
    """One sampled position, and what its reading says; None: it was not read."""

    position: int
    token: str = " sum"
    text: str | None = "an answer about medicine; expects \u201cof\u201d"
    verified: bool = True
    fve: float = 0.41
    anomaly: float | None = 0.4
    concepts: Sequence[str] = ()
    claims: dict[str, Any] | None = None


def add_request(
    session: Session,
    audited: seed.Audited,
    spoken: Sequence[Spoken],
    request_id: str = "chat-1",
    captured_at: dt.datetime = seed.START,
) -> uuid.UUID:
    """Store a request with these positions; return its capture."""
    capture = seed.capture_of(audited, request_id)
    samples, explanations, matches = [], [], []
    for one in spoken:
        sample = {
            "id": uuid.uuid4(),
            "model_id": audited.model.id,
            "request_id": request_id,
            "capture_id": capture,
            "layer": audited.decoder.layer,
            "position": one.position,
            "token_id": 7,
            "token_text": one.token,
            "phase": "prefill" if one.position < 8 else "decode",
            "norm": 241.3,
            "stratum": "uniform",
            "inclusion_probability": 0.25,
            "baseline_probability": 0.25,
            "reason": "prompt_end" if one.position < 8 else "decode",
            "screen_scores": {},
            "captured_at": captured_at,
        }
        samples.append(sample)
        if one.text is None:
            continue
        explanation = {
            "id": uuid.uuid4(),
            "sample_id": sample["id"],
            "decoder_id": audited.decoder.id,
            "captured_at": captured_at,
            "text": one.text,
            "well_formed": True,
            "cosine": 0.87,
            "fve": one.fve,
            "fve_beyond_token": one.fve - 0.1,
            "position_class": "answer",
            "verified": one.verified,
            "claims": one.claims,
            "candidates": 4,
            "margin": 0.02,
            "anomaly_score": one.anomaly,
            "anomaly_p_value": None if one.anomaly is None else 0.013,
            "anomaly_calibration_n": None if one.anomaly is None else 512,
        }
        explanations.append(explanation)
        matches += [
            {
                "explanation_id": explanation["id"],
                "captured_at": captured_at,
                "concept": concept,
                "matcher": "regex",
                "score": 1.0,
            }
            for concept in one.concepts
        ]
    unsaved = Sample(request_id=request_id, capture_id=capture, captured_at=captured_at)
    names.add_names(session, [names.NamedSample(unsaved, ())], audited.model.id)
    for table, rows in ((Sample, samples), (Explanation, explanations), (ConceptMatch, matches)):
        if rows:
            session.execute(insert(table), rows)
    session.flush()
    return capture


def claims(area: str) -> dict[str, Any]:
    """Return what a reading of this theme claims."""
    return {
        "register": "an answer",
        "area": area,
        "topic": "pain",
        "kinds": ["medical advice"],
        "expects": " of",
        "expects_agreement": 0.75,
        "areas": {area: 0.81},
        "kind_scores": {"medical advice": 0.64},
    }


def add_alerted(session: Session) -> seed.Audited:
    """Store the request that somebody is woken for: a flag, a discovery, gaps, and an unread position."""
    audited = seed.add_model(session)
    spoken = [
        Spoken(
            position,
            WORDS[position % len(WORDS)],
            None if position == 29 else f"an answer about medicine, reading {position}",
            verified=position % 5 != 0,
            fve=0.2 + (position % 7) / 10,
            anomaly=(position % 4) * 0.7,
            concepts=["self-harm"] if position in {12, 13, 14} else [],
            claims=claims("medicine"),
        )
        for position in range(4, 60)
        if position not in {9, 10, 20, 21, 22, 40}
    ]
    add_request(session, audited, spoken)
    flag = seed.add_flag(session, audited, concept="self-harm", severity="critical")
    flag.false_positive_rate = 0.008
    flag.false_positive_rate_upper = 0.015
    flag.calibration_requests = 944
    flag.calibration_digest = "ab" * 32
    flag.status = "calibrated"
    flag.concept_version = 2
    lead = seed.add_flag(session, audited, concept="deception", severity="warning")
    seed.add_window(session, audited, others=["chat-2", "chat-3"], positions=(12, 13))
    seed.add_incident(session, flag, lead)
    return audited


def add_everything(session: Session) -> seed.Audited:
    """Store something for every page to show: certain and uncertain, much and little.

    Of the tokens of `chat-1`, 0 is verified and matched a concept that is not calibrated, 1 is unverified,
    2 matched nothing, 3 was not read, 4 was not sampled, and 5 has no anomaly score. LONG was flagged by
    the same concept, calibrated.
    """
    minute = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0) - dt.timedelta(minutes=5)
    audited = seed.add_model(session)
    audited.decoder.card = json.loads((CARD / "card.json").read_text(encoding="utf-8")) | {
        "calibration": json.loads((CARD / "calibration.json").read_text(encoding="utf-8"))["measured"]
    }
    seed.add_decoder(session, audited.model, 7)
    spoken = [
        Spoken(0, text=READING, concepts=[CONCEPT], claims=seed.CLAIMS),
        Spoken(1, text=READING, concepts=[CONCEPT], claims=seed.CLAIMS, verified=False, fve=-0.1),
        Spoken(2, text=READING),
        Spoken(3, text=None),
        Spoken(5, text=READING, anomaly=None),
    ]
    add_request(session, audited, spoken, captured_at=minute)
    add_request(session, audited, spoken[:1], LONG, captured_at=minute)
    add_request(session, audited, spoken[2:3], "chat-2", captured_at=minute)
    definition = {
        "severity": "critical",
        "positions_required": 2,
        "description": "Says what is not so.",
    }
    for version in (1, 2):
        concept = NewConcept(name=CONCEPT, version=version, digest=str(version) * 64, definition=definition)
        register_concepts(session, audited.model.id, [concept])
    for request_id, rate in (("chat-1", None), (LONG, 0.0075)):
        flag = seed.add_flag(
            session,
            audited,
            request_id=request_id,
            concept=CONCEPT,
            captured_at=minute,
            created_at=minute,
            false_positive_rate=rate,
        )
        seed.add_incident(session, flag)
    seed.add_window(session, audited, ["chat-1"], ["chat-2", "chat-3", "chat-4"], captured_at=minute)
    seed.add_coverage(
        session, hop="plugin", minute=minute, requests_seen=1200, requests_sampled=300, rows_sampled=400
    )
    seed.add_coverage(session, hop="plugin", minute=minute, source="other", dropped_queue_full=20)
    seed.add_coverage(session, hop="worker", minute=minute, rows_consumed=380, rows_decoded=360)
    for outcome in ("flagged", "flagged", "not_flagged"):
        run = NewRun(model="tiny", concept="weapons", kind="positive", outcome=outcome, lost_at=None)
        runs.add(session, run)
    capture = configuration(Kind.CAPTURE_POLICY, {"request_rate": 0.5, "decode_stride": 8})
    concepts = configuration(Kind.CONCEPTS, {"concepts": [{"name": CONCEPT, "digest": "2" * 64}]})
    for hop, one in ((Hop.PLUGIN, capture), (Hop.WORKER, concepts)):
        write.note(session, [Report(source="s", hop=hop, model="tiny", layer=None, configuration=one)])
    seed.add_hold(session, model="tiny")
    seed.add_period(session, 400)
    seed.add_period(session, 200, is_confirmed=False)
    seed.add_erasure(session)
    seed.add_certificate(session, audited.model.id)
    return audited
