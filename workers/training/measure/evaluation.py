"""Measure a trained pair and its nulls on held-out chats; every figure has an interval and n."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.checkpoint.labels import LabelHead
from workers.nla.claims import shown
from workers.training.data.dataset import Samples
from workers.training.data.material import Material
from workers.training.data.targets import ReadingWriter
from workers.training.fit import tasks
from workers.training.fit.labels import LabelTargets
from workers.training.fit.reconstructor import Reconstructor
from workers.training.fit.verbalizer import Verbalizer
from workers.training.measure import readings
from workers.training.measure.readings import Candidates

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]
Figures = dict[str, dict[str, Any]]
SUREST_POSITIONS, SUREST_REQUESTS = 0.3, 0.4
"""Shares of readings and requests, by confidence, for the figures about the surest themes."""
FEWEST_KINDS = 20
"""Smallest number of requests with a kind for its figures."""


class HeldOutSet(NamedTuple):
    """The held-out data that a pair is measured on."""

    samples: Samples
    material: Material
    baseline: float
    """FVE baseline of the calibration set."""
    token_means: Vectors
    """Prediction from the read token alone, (n, d)."""
    rounds: int
    """Number of bootstrap rounds."""

    def take(self, rows: NDArray[np.int64]) -> "HeldOutSet":
        """Return the chosen rows."""
        return self._replace(
            samples=self.samples.take(rows),
            material=self.material.take(rows),
            token_means=self.token_means[rows],
        )

    def fve(self, rebuilt: Vectors) -> Values:
        """Return the FVE of every row, (n,), for rebuilt vectors (n, d)."""
        return fidelity.fve(self.samples.vectors, rebuilt, baseline=self.baseline)

    def mean(self, values: NDArray[Any]) -> dict[str, Any]:
        """Return a mean with its interval."""
        return fidelity.mean_interval(
            np.asarray(values, np.float64), self.samples.documents, rounds=self.rounds
        ).as_dict()

    def beyond(self, rebuilt: Vectors) -> dict[str, Any]:
        """Return FVE beyond the token, as a ratio of sums over all rows."""
        left, open_ = 1 - self.fve(rebuilt), 1 - self.fve(self.token_means)
        return one_minus_ratio(left, open_, self.samples.documents, rounds=self.rounds).as_dict()


class WrittenReadings(NamedTuple):
    """The AV's readings of the chosen rows, greedy and sampled."""

    greedy: Sequence[Candidates]
    sampled: Sequence[Candidates]


def measure_reconstructor(ar: Reconstructor, writer: ReadingWriter, held_out: HeldOutSet) -> Figures:
    """Return the AR's fidelity on true readings and on nulls."""
    rebuilt = ar.rebuild(tasks.true_sequences(writer, held_out.material))
    tokens = held_out.samples.tokens.tolist()
    partners = fidelity.other_documents(held_out.samples.documents)
    alone = ar.rebuild([writer.ar_ids("", token) for token in tokens])
    predictions = {
        "true_text_fve": rebuilt,
        "shuffled_text_fve": rebuilt[partners],
        "empty_text_fve": alone,
        "token_mean_baseline_fve": held_out.token_means,
    }
    figures = {name: held_out.mean(held_out.fve(vectors)) for name, vectors in predictions.items()}
    return {**figures, "true_text_beyond_token": held_out.beyond(rebuilt)}


def measure_verbalizer(av: Verbalizer, writer: ReadingWriter, held_out: HeldOutSet) -> Figures:
    """Return the AV's accuracy with teacher forcing."""
    examples = tasks.av_examples(writer, held_out.material)
    centred = held_out.material.centred
    real = tasks.teacher_forced(av, examples, centred)
    partners = fidelity.other_documents(held_out.samples.documents)
    shuffled = tasks.teacher_forced(av, examples, centred[partners])
    values = {
        "next_token_right": real.next_right,
        "next_token_right_shuffled": shuffled.next_right,
        "token_before_right": real.before_1,
        "token_before_right_shuffled": shuffled.before_1,
        "second_before_right": real.before_2,
        "fourth_before_right": real.before_4,
        "loss_of_the_quote": real.loss,
        "loss_gap_shuffled_minus_real": shuffled.loss - real.loss,
    }
    return {name: held_out.mean(value) for name, value in values.items()}


def measure_round_trip(
    ar: Reconstructor, writer: ReadingWriter, held_out: HeldOutSet, written: WrittenReadings
) -> Figures:
    """Return the fidelity of the AV's own readings, and of their nulls."""
    tokens = held_out.samples.tokens
    vectors = held_out.samples.vectors
    greedy = ar.rebuild(readings.sequences(writer, written.greedy, tokens))
    sampled = _stacked(ar, writer, written.sampled, tokens)
    best = choose_best(vectors, sampled)
    figures: Figures = {}
    for name, rebuilt in (("best", best), ("greedy", greedy), ("one_sampled", sampled[:, 0])):
        figures[f"{name}_fve"] = held_out.mean(held_out.fve(rebuilt))
        figures[f"{name}_beyond_token"] = held_out.beyond(rebuilt)
    classes = held_out.samples.is_answer
    partners = other_of_class(held_out.samples.documents, classes)
    own = _stacked(ar, writer, [written.sampled[other] for other in partners], tokens)
    null = choose_best(vectors, own)
    null_greedy = ar.rebuild(
        readings.sequences(writer, [written.greedy[other] for other in partners], tokens)
    )
    figures["same_token_null_best_fve"] = held_out.mean(held_out.fve(null))
    figures["same_token_null_best_beyond_token"] = held_out.beyond(null)
    figures["same_token_null_greedy_fve"] = held_out.mean(held_out.fve(null_greedy))
    figures["same_token_null_greedy_beyond_token"] = held_out.beyond(null_greedy)
    figures["pairs_won_greedy"] = held_out.mean(held_out.fve(greedy) > held_out.fve(null_greedy))
    shuffled = fidelity.other_documents(held_out.samples.documents)
    figures["shuffled_fve"] = held_out.mean(held_out.fve(greedy[shuffled]))
    figures["token_mean_baseline_fve"] = held_out.mean(held_out.fve(held_out.token_means))
    for name, group in (("prompt", classes == 0), ("answer", classes == 1)):
        part = held_out.take(np.flatnonzero(group))
        figures[f"best_fve_{name}"] = part.mean(part.fve(best[group]))
        figures[f"best_beyond_token_{name}"] = part.beyond(best[group])
    formed = [all(one.well_formed) for one in (*written.greedy, *written.sampled)]
    figures["well_formed"] = fidelity.share_interval(np.array(formed)).as_dict()
    return figures


def examples(
    writer: ReadingWriter, held_out: HeldOutSet, written: WrittenReadings, *, count: int = 12
) -> list[dict[str, str]]:
    """Return example readings with the true words, leaving out prompts of real users."""
    rows = np.flatnonzero(held_out.samples.is_real == 0)
    shown_readings = []
    for row in rows[tasks.spread(len(rows), count)].tolist():
        context = held_out.material.context[row].tolist()
        shown_readings.append(
            {
                "words": writer.decode(context),
                "reading": shown(written.greedy[row].texts[0], writer.decode(context[-1:])),
            }
        )
    return shown_readings


def measure_themes(head: LabelHead, held_out: HeldOutSet, targets: LabelTargets) -> Figures:
    """Return how often the likeliest area is the labeller's, over all and over the surest rows, by origin.

    Only answer positions count, because their label covers the whole prompt.
    """
    figures: Figures = {}
    scores = head.score(held_out.material.centred)
    for origin, is_real in (("sets", 0), ("real", 1)):
        rows = np.flatnonzero((held_out.samples.is_answer == 1) & (held_out.samples.is_real == is_real))
        if not len(rows):
            continue
        part, areas = held_out.take(rows), scores.areas[rows]
        truth = targets.areas[rows].argmax(axis=1)
        right = areas.argmax(axis=1) == truth
        sure = areas.max(axis=1)
        figures[f"area_right_{origin}"] = part.mean(right)
        surest = surest_rows(sure, SUREST_POSITIONS)
        figures[f"area_right_surest_30_{origin}"] = part.take(surest).mean(right[surest])
        named = np.flatnonzero(sure >= head.names.area_above)
        figures[f"area_named_{origin}"] = part.mean(sure >= head.names.area_above)
        if len(named):
            figures[f"area_right_where_named_{origin}"] = part.take(named).mean(right[named])
        pooled, pooled_truth = _pool(areas, truth, part.samples.documents)
        pooled_right = pooled.argmax(axis=1) == pooled_truth
        surest = surest_rows(pooled.max(axis=1), SUREST_REQUESTS)
        figures[f"pooled_area_right_{origin}"] = fidelity.share_interval(pooled_right).as_dict()
        figures[f"pooled_area_right_surest_40_{origin}"] = fidelity.share_interval(
            pooled_right[surest]
        ).as_dict()
    return figures


def measure_labeller(held_out: HeldOutSet, targets: LabelTargets, on_answer: Mapping[int, int]) -> Figures:
    """Return how often the labeller finds the prompt's area from the answer's text: an upper reference."""
    figures: Figures = {}
    samples = held_out.samples
    for origin, is_real in (("sets", 0), ("real", 1)):
        rows = np.flatnonzero((samples.is_answer == 1) & (samples.is_real == is_real))
        if not len(rows):
            continue
        documents, first = np.unique(samples.documents[rows], return_index=True)
        truth = targets.areas[rows[first]].argmax(axis=1)
        right = np.array([on_answer[document] for document in documents.tolist()]) == truth
        figures[f"labeller_on_answer_{origin}"] = fidelity.share_interval(right).as_dict()
    return figures


def measure_kinds(head: LabelHead, held_out: HeldOutSet, targets: LabelTargets) -> Figures:
    """Return each kind's AUROC and recall at 1% false positives, over requests' mean scores."""
    import sklearn.metrics

    documents = held_out.samples.documents
    scores = head.score(held_out.material.centred).kinds
    figures: Figures = {}
    for index, kind in enumerate(head.names.kinds):
        names, pooled = np.unique(documents), []
        truth = []
        for document in names:
            rows = documents == document
            pooled.append(float(scores[rows, index].mean()))
            truth.append(bool(targets.kinds[rows, index].max() > 0))
        is_there = np.array(truth)
        if is_there.sum() < FEWEST_KINDS or is_there.all():
            continue
        values = np.array(pooled)
        above = np.quantile(values[~is_there], 0.99)
        figures[kind] = {
            "auroc": round(float(sklearn.metrics.roc_auc_score(is_there, values)), 4),
            "recall_at_1pct_fpr": fidelity.share_interval(values[is_there] > above).as_dict(),
            "requests_with": int(is_there.sum()),
            "requests": len(is_there),
        }
    return figures


def one_minus_ratio(
    left: Values, total: Values, documents: NDArray[np.int64], *, rounds: int, seed: int = 0
) -> fidelity.Interval:
    """Return 1 - sum(left) / sum(total), both (n,), with a bootstrap interval over documents."""
    _, group = np.unique(documents, return_inverse=True)
    lefts, totals = np.bincount(group, weights=left), np.bincount(group, weights=total)
    drawn = np.random.default_rng(seed).integers(len(lefts), size=(rounds, len(lefts)))
    low, high = np.percentile(1 - lefts[drawn].sum(axis=1) / totals[drawn].sum(axis=1), (2.5, 97.5))
    return fidelity.Interval(float(1 - left.sum() / total.sum()), float(low), float(high), len(left))


def predict_token_means(
    train: Vectors, train_tokens: NDArray[np.int64], tokens: NDArray[np.int64], *, prior: float = 2.0
) -> Vectors:
    """Predict each token's mean training direction, (n, d), shrunk to the global mean by `prior` rows.

    A decoder that does not beat this baseline has learned only the read token.
    """
    units = fidelity.to_unit(train)
    overall = units.mean(axis=0)
    predictions = np.empty((len(tokens), units.shape[1]), np.float32)
    for token in np.unique(tokens):
        own = units[train_tokens == token]
        predictions[tokens == token] = (own.sum(axis=0) + prior * overall) / (len(own) + prior)
    return predictions


def choose_best(vectors: Vectors, rebuilt: NDArray[np.float32]) -> Vectors:
    """Return the candidates of `rebuilt` (n, candidates, d) with the highest cosine, (n, d)."""
    units = fidelity.to_unit(vectors)
    cosines = np.einsum(
        "nd,ncd->nc", units, fidelity.to_unit(rebuilt.reshape(-1, rebuilt.shape[-1])).reshape(rebuilt.shape)
    )
    return np.asarray(rebuilt[np.arange(len(vectors)), cosines.argmax(axis=1)], np.float32)


def other_of_class(documents: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every row a row of another document and the same class, (n,)."""
    partners = np.empty(len(documents), np.int64)
    for name in np.unique(classes):
        rows = np.flatnonzero(classes == name)
        partners[rows] = rows[fidelity.other_documents(documents[rows])]
    return partners


def surest_rows(sure: NDArray[Any], share: float) -> NDArray[np.int64]:
    """Return the given share of rows with the highest confidence `sure` (n,), in row order."""
    return np.sort(np.argsort(-sure, kind="stable")[: max(1, round(len(sure) * share))])


def _pool(
    areas: NDArray[np.float32], truth: NDArray[np.int64], documents: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    names = np.unique(documents)
    pooled = np.stack([areas[documents == name].mean(axis=0) for name in names])
    return np.asarray(pooled, np.float64), np.array([truth[documents == name][0] for name in names])


def _stacked(
    ar: Reconstructor, writer: ReadingWriter, candidates: Sequence[Candidates], tokens: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the vectors rebuilt from every candidate, (n, candidates, d)."""
    rebuilt = ar.rebuild(readings.sequences(writer, candidates, tokens))
    return rebuilt.reshape(len(candidates), -1, rebuilt.shape[1])
