"""What a worker runs, as versions of configurations: nothing of its settings that is secret or a place."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from subtext_sidecar.anomaly.reference import described
from subtext_sidecar.anomaly.score import Reference
from subtext_sidecar.contract.configuration import Configuration, Kind, configuration
from workers.judge.calibration import InForce, Loaded
from workers.judge.concepts import ConceptSet
from workers.judge.policy import JudgePolicy
from workers.nla.decoder import DecoderIdentity
from workers.settings import WorkerSettings


class Running(NamedTuple):
    """What a worker reads and judges with, from its start to its end."""

    settings: WorkerSettings
    version: str
    """Of this program."""
    decoder: DecoderIdentity
    concepts: ConceptSet
    calibration: Loaded | None
    """As it was loaded; `in_force` says whether it holds."""
    in_force: InForce
    anomaly: Reference | None
    policy: JudgePolicy


def configurations(running: Running) -> list[Configuration]:
    """Return the versions that are in force, the worker's own last: it names the others by their digests.

    A calibration that is of another decoder is not in force, so it is not among them.
    """
    parts = [
        configuration(Kind.DECODER, _decoder(running.decoder)),
        configuration(Kind.CONCEPTS, _concepts(running.concepts)),
    ]
    if running.calibration is not None and running.in_force.digest is not None:
        content = running.calibration.calibration.model_dump(mode="json")
        parts.append(
            configuration(Kind.CONCEPT_CALIBRATION, content | {"digest": running.calibration.digest})
        )
    if running.anomaly is not None:
        parts.append(configuration(Kind.ANOMALY_REFERENCE, described(running.anomaly)))
    digests = {one.kind: one.digest for one in parts}
    return [*parts, configuration(Kind.WORKER, _worker(running, digests))]


def _decoder(identity: DecoderIdentity) -> dict[str, Any]:
    return {
        "name": identity.name,
        "digest": identity.digest,
        "model": identity.model,
        "layer": identity.layer,
        "d_model": identity.d_model,
        "fve_baseline": identity.fve_baseline,
        "shuffled_fve_p95": identity.shuffled_fve_p95,
        "verified_above": dict(identity.verified_above),
        "calibration_n": identity.calibration_n,
        "candidates": identity.candidates,
    }


def _concepts(concepts: ConceptSet) -> dict[str, Any]:
    return {
        "digest": concepts.digest,
        "concepts": [one.content | {"digest": one.digest} for one in concepts.concepts],
    }


def _worker(running: Running, digests: Mapping[Kind, str]) -> dict[str, Any]:
    settings, in_force = running.settings, running.in_force
    return {
        "version": running.version,
        "decoder": digests[Kind.DECODER],
        "concepts": digests[Kind.CONCEPTS],
        "concept_calibration": digests.get(Kind.CONCEPT_CALIBRATION),
        "concept_calibration_rejected": sorted(in_force.rejected),
        "anomaly_reference": digests.get(Kind.ANOMALY_REFERENCE),
        "candidates": settings.candidates,
        "engine": dict(running.decoder.engine),
        "max_deliveries": settings.max_deliveries,
        "anomaly": {
            "p_value": running.policy.anomaly_p_value,
            "fdr": settings.anomaly_fdr,
            "window_seconds": settings.anomaly_window_seconds,
            "window_requests": settings.anomaly_window_requests,
            "settle_seconds": settings.anomaly_settle_seconds,
        },
        "rules": {
            name: {
                "severity": rule.severity,
                "positions_required": rule.positions_required,
                "positions_judged": rule.positions_judged,
                "threshold": in_force.thresholds.get(name),
                "is_calibrated": rule.calibrated is not None,
            }
            for name, rule in in_force.rules.items()
        },
    }
