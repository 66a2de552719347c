"""Concept calibrations for tests."""

import datetime as dt
from typing import Any

from workers.judge.calibration import FORMAT, CalibratedConcept, ConceptCalibration, Measured, Traffic
from workers.judge.concepts import Concept, ConceptSet
from workers.nla.decoder import DecoderIdentity

MEASURED = Measured(requests=500, incidents=4, rate=0.008, upper_limit=0.0182)


def calibrated(concept: Concept, **changes: Any) -> CalibratedConcept:
    """Return a concept's calibration, with changed fields."""
    fields: dict[str, Any] = {
        "version": concept.version,
        "digest": concept.digest,
        "target_false_positive_rate": 0.01,
        "positions_required": 2,
        "threshold": None,
        "reason": None,
        "measured": MEASURED,
        "scores": {},
    }
    return CalibratedConcept(**(fields | changes))


def calibration_of(concepts: ConceptSet, identity: DecoderIdentity, **changes: Any) -> ConceptCalibration:
    """Return a calibration of all concepts, with changed fields."""
    traffic = Traffic(
        source="test",
        captured_from=None,
        captured_until=None,
        requests=500,
        requests_left_out=0,
        readings=2500,
        verified_readings=2400,
        verified_positions={},
        last_position={},
    )
    fields: dict[str, Any] = {
        "format": FORMAT,
        "made_at": dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
        "decoder_digest": identity.digest,
        "model": identity.model,
        "layer": identity.layer,
        "concepts_digest": concepts.digest,
        "traffic": traffic,
        "positions_judged": 8,
        "concepts": {concept.name: calibrated(concept) for concept in concepts.concepts},
        "any_concept": MEASURED,
    }
    return ConceptCalibration(**(fields | changes))
