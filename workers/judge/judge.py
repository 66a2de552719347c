"""The judge that the worker's loop calls: concept matches and anomaly p-values of a batch of readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.store.write.evidence import ConceptVersion, Verdicts
from subtext_sidecar.anomaly.score import Detector, Places
from workers.judge import anomalies
from workers.judge.calibration import InForce
from workers.judge.concepts import ConceptSet
from workers.judge.flags import decide, positions_needed
from workers.judge.matching import ConceptMatcher, Match
from workers.judge.policy import JudgePolicy
from workers.nla.decoder import Claims


class Judgement(NamedTuple):
    """The judge's result for one reading; the anomaly fields are None without a reference."""

    anomaly_score: float | None
    anomaly_p_value: float | None
    anomaly_calibration_n: int | None
    matches: list[Match]
    is_disputed: bool = False
    """The sidecar's screen has another anomaly reference than this worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Concepts, their rules, detector and policy in force."""

    concepts: ConceptSet
    in_force: InForce
    matcher: ConceptMatcher
    detector: Detector | None  # None when the decoder has no anomaly reference
    policy: JudgePolicy

    def judge(
        self,
        vectors: NDArray[np.float32],
        texts: Sequence[str],
        places: Places,
        screened: Sequence[Mapping[str, float]],
        claims: Sequence[Claims | None] | None = None,
    ) -> list[Judgement]:
        """Return one judgement per reading.

        ``vectors`` is (n, d_model), read at ``places``. ``screened`` holds the records' scores, ``claims``
        those of the readings.
        """
        matches = self.matcher.match(texts, claims, vectors)
        if self.detector is None:
            return [Judgement(None, None, None, found) for found in matches]
        found_of = zip(anomalies.measure(self.detector, vectors, places, screened), matches, strict=True)
        return [
            Judgement(found.score, found.p_value, found.calibration_n, matched, found.is_disputed)
            for found, matched in found_of
        ]

    def verdicts(self) -> Verdicts:
        """Return the flag rule and the digests that the store writes with each flag."""
        return Verdicts(
            decide=partial(decide, self.in_force.rules),
            concepts_digest=self.concepts.digest,
            calibration_digest=self.in_force.digest,
            thresholds=self.in_force.thresholds,
            concept_versions={
                concept.name: ConceptVersion(concept.version, concept.digest)
                for concept in self.concepts.concepts
            },
            anomaly_p_value=self.policy.anomaly_p_value,
            positions_needed=positions_needed(self.in_force.rules.values()),
        )
