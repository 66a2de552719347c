"""The judge as the loop sees it: concept matches and anomaly p-values of a batch of readings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.store.ingest import FlagRule, Verdicts
from workers.consumer import pipeline
from workers.judge.anomalies import AnomalyReference
from workers.judge.concepts import ConceptMatcher, ConceptSet
from workers.judge.policy import JudgePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Concepts and anomaly reference in force, under one policy."""

    concepts: ConceptSet
    matcher: ConceptMatcher
    reference: AnomalyReference | None  # None: the decoder has no calibration
    policy: JudgePolicy

    def judge(self, vectors: NDArray[np.float32], texts: Sequence[str]) -> list[pipeline.Judged]:
        """Return one verdict a reading; ``vectors`` (n, d_model)."""
        anomalies = None if self.reference is None else self.reference.score(vectors)
        calibration_n = 0 if self.reference is None else self.reference.calibration_n
        return pipeline.judged(anomalies, calibration_n, self.matcher.match(texts))

    def verdicts(self) -> Verdicts:
        """Return what the store raises flags by."""
        required = self.policy.positions_required(self.concepts)
        return Verdicts(
            concepts_digest=self.concepts.digest,
            rules={
                concept.name: FlagRule(severity=concept.severity, positions_required=required[concept.name])
                for concept in self.concepts.concepts
            },
            false_positive_rate=self.policy.false_positive_rate,
        )
