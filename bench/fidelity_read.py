"""Decode vectors and nulls for bench-fidelity with the real decoder."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bench.fidelity_data import Source
from workers.calibrate.measure import Reader, mean_vectors, random_vectors
from workers.calibrate.nulls import Pairs, draw_pairs
from workers.calibrate.summary import Evidence, Vectors
from workers.nla import claims
from workers.nla.candidates import RoundTrip, choose
from workers.nla.decoder import GivenFacts
from workers.nla.engine.nla_decoder import NlaDecoder, judge
from workers.nla.engine.verbalizer import Explanation, Verbalizer
from workers.nla.token_means import TokenMeans

Rebuilt = NDArray[np.float32]


class Mode(NamedTuple):
    """Readings in one mode, best of several or greedy, with the nulls of the same mode."""

    real: Evidence
    other: Evidence
    """The same-token null: other documents' readings with a vector's own token; see `Reads.pairs`."""
    permuted: Evidence
    """Readings of the same document's other positions with a vector's own token; see `Reads.inside`."""


class Reads(NamedTuple):
    """All readings of one source."""

    source: Source
    best: Mode
    greedy: Mode
    pairs: Pairs
    inside: Pairs
    random: Evidence
    mean: Evidence
    empty: Rebuilt
    """The AR's output for the empty text at the rows' tokens, (n, d)."""
    true: Rebuilt | None
    """The AR's output for the true readings, (n, d); None for a pair without labels."""
    verified: dict[str, NDArray[np.bool_]]
    """Which readings the decoder verifies, by kind of evidence; empty for an uncalibrated decoder."""


def read_all(
    decoder: NlaDecoder, means: TokenMeans, source: Source, layer: Vectors, log: Callable[[str], None]
) -> Reads:
    """Decode a source's rows and their nulls in both modes.

    `layer` are the vectors whose mean direction serves as a null.
    """
    vectors = source.vectors
    reader, single = Reader(decoder, means, log), Reader(greedily(decoder), means, log)
    inside = permute_inside(source.samples.documents)
    best, greedy = (
        _read_mode(one, vectors, inside, name)
        for one, name in ((reader, "candidates"), (single, "greedily"))
    )
    random = reader.read(random_vectors(vectors), "random vectors")
    mean = reader.read(mean_vectors(layer, vectors), "the mean vector")
    real = {"real": best.real, "same_token": best.other, "random": random, "layer_mean": mean}
    real["permuted"] = best.permuted
    given = vectors.given
    log("rebuilding true and empty texts")
    true = true_texts(decoder, source, [one[0] for one in best.real.trip.candidates])
    return Reads(
        source=source,
        best=best,
        greedy=greedy,
        pairs=draw_pairs(vectors.documents, best.real.classes),
        inside=inside,
        random=random,
        mean=mean,
        empty=decoder.reconstructor.rebuild([""] * len(vectors.rows), given.token_ids),
        true=None if true is None else decoder.reconstructor.rebuild(true, given.token_ids),
        verified={name: verify(decoder, one) for name, one in real.items()} if decoder.calibration else {},
    )


def greedily(decoder: NlaDecoder) -> NlaDecoder:
    """Return the same decoder with one greedy reading per vector."""
    return dataclasses.replace(decoder, verbalizer=cast("Verbalizer", _Greedy(decoder.verbalizer)))


class _Greedy:
    """A verbalizer that writes one greedy candidate."""

    candidates = 1

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def verbalize(self, vectors: Rebuilt, given: GivenFacts) -> list[list[Explanation]]:
        explanations: list[list[Explanation]] = self._inner.verbalize(vectors, given, 1)
        return explanations


def _read_mode(reader: Reader, vectors: Vectors, inside: Pairs, name: str) -> Mode:
    real = reader.read(vectors, f"vectors, {name}")
    return Mode(real, reader.try_on_others(real), borrow(reader, real, inside))


def borrow(reader: Reader, real: Evidence, pairs: Pairs) -> Evidence:
    """Pair each row with its partner's readings, rebuilt with the row's own token."""
    vectors = real.vectors.take(pairs.rows)
    candidates = [real.trip.candidates[partner] for partner in pairs.partners]
    each = real.trip.rebuilt.shape[1]
    texts = [candidate.text for of_one in candidates for candidate in of_one]
    token_ids = np.repeat(np.array(vectors.given.token_ids, np.int64), each).tolist()
    rebuilt = reader.decoder.reconstructor.rebuild(texts, token_ids)
    classes = [real.classes[row] for row in pairs.rows]
    expected = None if real.expected is None else real.expected[pairs.rows]
    shape = (len(candidates), each, vectors.rows.shape[1])
    return Evidence(vectors, classes, expected, RoundTrip(candidates, rebuilt.reshape(shape)))


def permute_inside(documents: NDArray[np.int64], *, seed: int = 0) -> Pairs:
    """Pair every row with another row of the same document, leaving out documents with one row; pure."""
    rng = np.random.default_rng(seed)
    rows, partners = [], []
    for name in np.unique(documents):
        own = rng.permutation(np.flatnonzero(documents == name))
        if len(own) > 1:
            rows += own.tolist()
            partners += np.roll(own, 1).tolist()
    return Pairs(np.array(rows, np.int64), np.array(partners, np.int64))


def true_texts(decoder: NlaDecoder, source: Source, candidates: Sequence[Explanation]) -> list[str] | None:
    """Return the true readings with the label head's sentences; None for a pair without labels."""
    samples, decode = source.samples, decoder.tokenizer.decode
    texts = []
    for one, context, after in zip(
        candidates, samples.context.tolist(), samples.next_tokens[:, 0].tolist(), strict=True
    ):
        if one.labelled is None:
            return None
        continuation = claims.Continuation(decode([after]), decode(context[:-1]))
        texts.append(claims.explanation(claims.first_sentence(one.labelled), continuation))
    return texts


def verify(decoder: NlaDecoder, evidence: Evidence) -> NDArray[np.bool_]:
    """Return which readings the decoder would verify, (n,)."""
    vectors, classes, expected, trip = evidence
    calibration = decoder.calibration
    if not len(vectors.rows) or calibration is None:
        return np.zeros(len(vectors.rows), bool)
    readings = judge(
        vectors.rows,
        trip,
        choose(vectors.rows, trip.rebuilt),
        classes=classes,
        tokens=[""] * len(classes),
        expected=expected,
        is_typical=calibration.is_typical(vectors.rows),
        identity=decoder.identity,
    )
    return np.array([reading.verified for reading in readings], bool)
