"""Requests as a worker stores them, many positions at once, for pages that show them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.store.tables import ConceptMatch, Explanation, Sample
from service.store.write import names
from tests.integration.service import seed

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
