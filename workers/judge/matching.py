"""Which readings match which concepts, and how strongly: by text, by claims, or by the vector itself.

One match is only a hint; `workers.judge.flags` decides when matches make a flag.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.judge.concepts import Claim, Concept, ConceptSet, MatcherKind, compile_pattern
from workers.judge.embedder import Embedder
from workers.nla.decoder import Claims

CERTAIN: Final = 1.0
"""Score of a match that no threshold was asked for."""
NOTHING: Final = -1.0
"""Score of a concept without anything to compare; no cosine is below it."""


Vectors = NDArray[np.floating[Any]]


class Match(NamedTuple):
    """One explanation, or the vector that it is of, that matched one concept."""

    concept: str
    matcher: MatcherKind
    score: float
    """`CERTAIN`, a cosine similarity, a claim's probability, or a probe's score."""


class _Found(NamedTuple):
    """What one matcher makes of every text."""

    concept: int
    kind: MatcherKind
    threshold: float | None
    scores: NDArray[np.float64]
    """(n,); without a threshold CERTAIN or NOTHING."""


class ConceptMatcher:
    """Finds concepts in readings; the examples are embedded once, at construction."""

    def __init__(self, concepts: ConceptSet, embedder: Embedder, thresholds: Mapping[str, float]) -> None:
        """Compile the patterns and embed the examples.

        ``thresholds`` by concept name override those in concepts.yaml.
        """
        self._concepts = concepts.concepts
        self._embedder = embedder
        self._thresholds = thresholds
        matchers = [
            (index, matcher)
            for index, concept in enumerate(concepts.concepts)
            for matcher in concept.matchers
        ]
        self._patterns = [
            (index, compile_pattern(matcher.regex))
            for index, matcher in matchers
            if matcher.regex is not None
        ]
        self._claims = [(index, matcher.claim) for index, matcher in matchers if matcher.claim is not None]
        self._semantics = [
            (index, matcher.semantic.threshold, embedder.embed(matcher.semantic.examples))
            for index, matcher in matchers
            if matcher.semantic is not None
        ]
        self._probes = [
            (index, matcher.probe.threshold, concepts.probes[str(matcher.probe.digest)])
            for index, matcher in matchers
            if matcher.probe is not None
        ]

    @property
    def needs_vectors(self) -> bool:
        """Whether a concept has a probe."""
        return bool(self._probes)

    def match(
        self,
        texts: Sequence[str],
        claims: Sequence[Claims | None] | None = None,
        vectors: Vectors | None = None,
    ) -> list[list[Match]]:
        """Return each text's matches: for every concept at most one, the highest-scoring.

        ``claims`` are the readings' claims and ``vectors`` (n, d_model) what was read, in the texts' order;
        ValueError without vectors when a concept has a probe.
        """
        best: list[dict[str, Match]] = [{} for _ in texts]
        for found in self._find(texts, claims, vectors):
            concept = self._concepts[found.concept]
            for place in np.flatnonzero(found.scores >= self._threshold(concept, found)).tolist():
                match = Match(concept.name, found.kind, float(found.scores[place]))
                known = best[place].get(concept.name)
                if known is None or match.score > known.score:
                    best[place][concept.name] = match
        return [list(matches.values()) for matches in best]

    def measure(
        self,
        texts: Sequence[str],
        claims: Sequence[Claims | None] | None = None,
        vectors: Vectors | None = None,
    ) -> NDArray[np.float64]:
        """Return how strongly every concept is matched, whatever the thresholds, (n, concepts).

        Takes what `match` takes. CERTAIN only where a matcher without a threshold matches; scores of others
        stay below it.
        """
        below = np.nextafter(CERTAIN, NOTHING)
        scores = np.full((len(texts), len(self._concepts)), NOTHING)
        for found in self._find(texts, claims, vectors):
            own = found.scores if found.threshold is None else np.minimum(found.scores, below)
            scores[:, found.concept] = np.maximum(scores[:, found.concept], own)
        return scores

    def _threshold(self, concept: Concept, found: _Found) -> float:
        if found.threshold is None:
            return CERTAIN
        return self._thresholds.get(concept.name, found.threshold)

    def _find(
        self, texts: Sequence[str], claims: Sequence[Claims | None] | None, vectors: Vectors | None
    ) -> list[_Found]:
        if not texts:
            return []
        if self._probes and vectors is None:
            raise ValueError("vectors: missing, and a concept has a probe; give those that were read")
        # RE2 and embedders work on UTF-8, which has no lone surrogates.
        encodable = [text.encode(errors="replace").decode() for text in texts]
        found = [
            _Found(index, "regex", None, _search(pattern, encodable)) for index, pattern in self._patterns
        ]
        for index, claim in self._claims:
            scores = [
                _score(claim, one) for one in (repeat(None, len(texts)) if claims is None else claims)
            ]
            found.append(_Found(index, "claim", claim.threshold, np.array(scores, np.float64)))
        if self._semantics:
            embedded = self._embedder.embed(encodable)
            for index, threshold, examples in self._semantics:
                similarity = np.asarray((embedded @ examples.T).max(axis=1), np.float64)
                found.append(_Found(index, "semantic", threshold, similarity))
        if vectors is not None:
            found += [
                _Found(index, "probe", threshold, probe.score(vectors))
                for index, threshold, probe in self._probes
            ]
        return found


def _search(pattern: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([CERTAIN if pattern.search(text) else NOTHING for text in texts], np.float64)


def _score(claim: Claim, claims: Claims | None) -> float:
    """Return the claimed probability, or without a threshold whether the claim is made."""
    if claims is None:
        return NOTHING
    if claim.threshold is not None:
        named, scores = (
            (claim.kind, claims.kind_scores) if claim.kind is not None else (claim.area, claims.areas)
        )
        return scores.get(str(named), 0.0)
    is_made = claim.kind in claims.kinds or (
        (claim.area is not None and claim.area == claims.area)
        or (claim.topic is not None and claim.topic == claims.topic)
    )
    return CERTAIN if is_made else NOTHING
