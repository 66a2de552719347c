"""The judge as the loop sees it: concept matches and anomaly p-values of a batch of readings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.store.write.flags import FlagRule, Verdicts
from workers.judge.anomalies import Anomalies, AnomalyReference
from workers.judge.concepts import ConceptMatcher, ConceptSet, Match
from workers.judge.policy import JudgePolicy


class Judgement(NamedTuple):
    """What the judge says about one reading."""

    anomaly_score: float | None
    anomaly_p_value: float | None
    anomaly_calibration_n: int | None
    matches: list[Match]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Concepts and anomaly reference in force, under one policy."""

    concepts: ConceptSet
    matcher: ConceptMatcher
    reference: AnomalyReference | None  # None: the decoder has no calibration
    policy: JudgePolicy

    def judge(self, vectors: NDArray[np.float32], texts: Sequence[str]) -> list[Judgement]:
        """Return one judgement a reading; ``vectors`` (n, d_model)."""
        anomalies = None if self.reference is None else self.reference.score(vectors)
        calibration_n = 0 if self.reference is None else self.reference.calibration_n
        return join_answers(anomalies, calibration_n, self.matcher.match(texts))

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


def join_answers(
    anomalies: Anomalies | None, calibration_n: int, matches: Sequence[list[Match]]
) -> list[Judgement]:
    """Join what reference and matcher say, one judgement a reading; pure."""
    if anomalies is None:
        return [Judgement(None, None, None, found) for found in matches]
    return [
        Judgement(score, p_value, calibration_n, found)
        for score, p_value, found in zip(
            anomalies.scores.tolist(), anomalies.p_values.tolist(), matches, strict=True
        )
    ]
