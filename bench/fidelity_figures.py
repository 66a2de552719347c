"""Fidelity figures of readings, nulls and baselines; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.fidelity_read import Mode, Reads, Rebuilt
from workers.calibrate.summary import Evidence
from workers.nla import fidelity
from workers.nla.candidates import choose
from workers.nla.fidelity import Interval
from workers.nla.positions import POSITION_CLASSES
from workers.training.measure.evaluation import one_minus_ratio

Table = dict[str, Interval]
Values = NDArray[np.float64]
LENGTHS = (0, 32, 64, 128)
"""Lower bounds of the groups by number of tokens before the read token."""


class Frame(NamedTuple):
    """Vectors, and the references that rebuilt vectors are scored against."""

    vectors: NDArray[np.float32]
    documents: NDArray[np.int64]
    token_fve: Values
    """FVE of the token means, (n,)."""
    baseline: float
    rounds: int
    """Number of bootstrap rounds."""

    @classmethod
    def of(cls, evidence: Evidence, *, baseline: float, rounds: int) -> "Frame":
        """Return the frame for evidence with token means; raises ValueError without them."""
        rows, documents = evidence.vectors.rows, evidence.vectors.documents
        expected = evidence.expected
        if expected is None:
            raise ValueError("tokens: must be known")
        token_fve = fidelity.fve(rows, expected, baseline=baseline)
        return cls(rows, documents, token_fve, baseline, rounds)

    def take(self, rows: NDArray[Any]) -> "Frame":
        """Return the rows that `rows` selects."""
        return self._replace(
            vectors=self.vectors[rows], documents=self.documents[rows], token_fve=self.token_fve[rows]
        )

    def fve(self, rebuilt: NDArray[Any]) -> Values:
        """Return the FVE of every row, (n,), for rebuilt vectors (n, d)."""
        return fidelity.fve(self.vectors, rebuilt, baseline=self.baseline)

    def mean(self, values: NDArray[Any]) -> Interval:
        """Return a mean with its interval over documents."""
        return fidelity.mean_interval(np.asarray(values, np.float64), self.documents, rounds=self.rounds)

    def both(self, name: str, fves: Values, group: str = "") -> Table:
        """Return mean FVE, and FVE beyond the token as a ratio of sums, for FVEs (n,)."""
        beyond = one_minus_ratio(1 - fves, 1 - self.token_fve, self.documents, rounds=self.rounds)
        return {f"{name}_fve{group}": self.mean(fves), f"{name}_beyond_token{group}": beyond}


def measure(reads: Reads, mean: NDArray[Any], *, baseline: float, rounds: int) -> Table:
    """Return every figure of the round trip; `mean` (d,) is the layer's mean direction."""
    vectors, documents = reads.best.real.vectors.rows, reads.best.real.vectors.documents
    frame = Frame.of(reads.best.real, baseline=baseline, rounds=rounds)
    rebuilt = {"best": chosen(reads.best.real), "greedy": chosen(reads.greedy.real)}
    partners = fidelity.other_documents(documents)
    rows: dict[str, Rebuilt] = {
        **rebuilt,
        "one_sampled": reads.best.real.trip.rebuilt[:, 0],
        "shuffled_best": rebuilt["best"][partners],
        "shuffled_greedy": rebuilt["greedy"][partners],
        "empty": reads.empty,
    }
    if reads.true is not None:
        rows |= {"true_text": reads.true, "shuffled_true_text": reads.true[partners]}
    fves = {name: frame.fve(one) for name, one in rows.items()}
    table: Table = {}
    for name, values in fves.items():
        table |= frame.both(name, values)
    table["token_mean_fve"] = frame.mean(frame.token_fve)
    table["layer_mean_fve"] = frame.mean(fidelity.fve(vectors, mean, baseline=baseline))
    for name, mode in (("best", reads.best), ("greedy", reads.greedy)):
        table |= _nulls(name, fves[name], mode, reads, baseline=baseline, rounds=rounds)
    for name, read in (("random_vector", reads.random), ("mean_vector", reads.mean)):
        other = Frame.of(read, baseline=baseline, rounds=rounds)
        table[f"{name}_fve"] = other.mean(other.fve(chosen(read)))
    grouped = {name: fves[name] for name in ("true_text", "best", "greedy", "empty") if name in fves}
    for group, member in groups(reads):
        part = frame.take(member)
        for name, values in grouped.items():
            table |= part.both(name, values[member], f"/{group}")
        table[f"token_mean_fve/{group}"] = part.mean(part.token_fve)
    return table | verified_shares(reads.verified, _classes(reads))


def _nulls(name: str, fves: Values, mode: Mode, reads: Reads, *, baseline: float, rounds: int) -> Table:
    """Return figures of the nulls that use other vectors' readings, and how often real readings win."""
    table: Table = {}
    for null, evidence, pairs in (
        ("same_token", mode.other, reads.pairs),
        ("permuted", mode.permuted, reads.inside),
    ):
        if not len(pairs.rows):
            continue
        frame = Frame.of(evidence, baseline=baseline, rounds=rounds)
        theirs = frame.fve(chosen(evidence))
        table |= frame.both(f"{null}_{name}", theirs)
        table[f"won_against_{null}_{name}"] = frame.mean(fves[pairs.rows] > theirs)
        kinds = np.asarray(evidence.classes)
        for kind in POSITION_CLASSES:
            member = np.flatnonzero(kinds == kind)
            if len(member):
                table |= frame.take(member).both(f"{null}_{name}", theirs[member], f"/{kind}")
    return table


def chosen(evidence: Evidence) -> Rebuilt:
    """Return the vector rebuilt from each row's best candidate, (n, d)."""
    return choose(evidence.vectors.rows, evidence.trip.rebuilt).rebuilt


def groups(reads: Reads) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield every non-empty group of rows, by position class and by tokens before the read token."""
    kinds = np.asarray(reads.best.real.classes)
    for kind in POSITION_CLASSES:
        if (rows := np.flatnonzero(kinds == kind)).size:
            yield kind, rows
    if not reads.source.has_positions:
        return
    place = np.searchsorted(LENGTHS, reads.source.samples.positions, side="right") - 1
    for index, low in enumerate(LENGTHS):
        if (rows := np.flatnonzero(place == index)).size:
            high = LENGTHS[index + 1] - 1 if index + 1 < len(LENGTHS) else ""
            yield f"{low}-{high} tokens", rows


def verified_shares(
    verified: Mapping[str, NDArray[np.bool_]], classes: Mapping[str, Sequence[str]]
) -> Table:
    """Return the verified share of every kind of evidence, overall and by position class."""
    table: Table = {}
    for name, verdict in verified.items():
        if not len(verdict):
            continue
        table[f"verified_{name}"] = fidelity.share_interval(verdict)
        kinds = np.asarray(classes[name])
        for kind in POSITION_CLASSES:
            if (kinds == kind).any():
                table[f"verified_{name}/{kind}"] = fidelity.share_interval(verdict[kinds == kind])
    return table


def _classes(reads: Reads) -> dict[str, Sequence[str]]:
    return {
        "real": reads.best.real.classes,
        "same_token": reads.best.other.classes,
        "permuted": reads.best.permuted.classes,
        "random": reads.random.classes,
        "layer_mean": reads.mean.classes,
    }
