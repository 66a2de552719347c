"""Accuracy of the words in readings: quotes, expected token and format; pure."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bench import quotes
from bench.fidelity_read import Reads
from workers.calibrate.summary import Evidence
from workers.nla import fidelity
from workers.nla.candidates import choose
from workers.nla.engine.verbalizer import Explanation
from workers.nla.fidelity import Interval

Decode = Callable[[list[int]], str]
Table = dict[str, Interval]


def measure(reads: Reads, decode: Decode, *, rounds: int) -> Table:
    """Return the shares of right quoted words, of right expected tokens, and of well-formed readings.

    The null for words and tokens is another document's reading.
    """
    samples = reads.source.samples
    documents = samples.documents
    true = [decode(context[:-1]) for context in samples.context.tolist()]
    after = [decode([token]) for token in samples.next_tokens[:, 0].tolist()]
    partners = fidelity.other_documents(documents)
    best, greedy = chosen(reads.best.real), chosen(reads.greedy.real)
    table: Table = {}
    for name, explanations in (
        ("best", best),
        ("greedy", greedy),
        ("shuffled", [best[partner] for partner in partners.tolist()]),
    ):
        quoted = [one.continuation.quote if one.continuation else "" for one in explanations]
        table |= quotes.measure(quoted, true, documents, name=f"quote_{name}", rounds=rounds)
        right = expects_right(explanations, after)
        table[f"expects_right_{name}"] = fidelity.mean_interval(right, documents, rounds=rounds)
    for name, explanations in (("best", best), ("greedy", greedy)):
        formed = np.array([one.well_formed for one in explanations], bool)
        table[f"well_formed_{name}"] = fidelity.share_interval(formed)
    return table


def chosen(evidence: Evidence) -> list[Explanation]:
    """Return each row's best candidate."""
    best = choose(evidence.vectors.rows, evidence.trip.rebuilt).best.tolist()
    return [candidates[index] for candidates, index in zip(evidence.trip.candidates, best, strict=True)]


def expects_right(explanations: Sequence[Explanation], after: Sequence[str]) -> NDArray[np.float64]:
    """Return which readings expect the model's likeliest next token, (n,)."""
    return np.array(
        [
            one.continuation is not None and one.continuation.expects == token
            for one, token in zip(explanations, after, strict=True)
        ],
        np.float64,
    )
