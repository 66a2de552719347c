"""Paired tests on indirect-object items: sign tests with exact intervals. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]  # no types upstream

from bench.trust.pairs.prompts import Item, Pair
from bench.trust.rates import Rate, rate
from bench.trust.report import shown
from workers.nla.claims import EXPECTS, READS

EXPECTED, TEXT, LENS, POSITION = (
    "reading, expected token",
    "reading, all of it",
    "logit lens",
    "position rule",
)
_LEVEL: Final = 0.05
Named = NDArray[np.bool_]
"""Whether each name is named, (items, 2): indirect object and subject."""


class Test(NamedTuple):
    """A sign test of pairs that differ."""

    method: str
    question: str
    wins: Rate
    """Pairs that speak for the question, of those that differ; an exact 95% interval."""
    pairs: int
    """All of them."""
    p_value: float
    """Two-sided, of wins and losses being equally likely; 1.0 when no pair differs."""

    @property
    def finding(self) -> str:
        """Say in words what the test shows."""
        if self.p_value > _LEVEL:
            return "not told from chance"
        return "yes" if self.wins.share > 1 / 2 else "the reverse"


def sign_test(method: str, question: str, ahead: NDArray[np.bool_], behind: NDArray[np.bool_]) -> Test:
    """Return the test of ``ahead`` against ``behind``, (pairs,) each: McNemar's, exact."""
    differs = ahead != behind
    wins = ahead[differs]
    p_value = float(binomtest(int(wins.sum()), len(wins)).pvalue) if len(wins) else 1.0
    return Test(method, question, rate(wins), len(ahead), p_value)


def named(texts: Sequence[str], items: Sequence[Item]) -> Named:
    """Return which of the items' names each text names, as whole words."""
    return np.array(
        [
            [re.search(rf"\b{re.escape(name)}\b", text) is not None for name in item.names()]
            for text, item in zip(texts, items, strict=True)
        ],
        bool,
    ).reshape(-1, 2)


def expected(text: str) -> str:
    """Return what a reading expects next; nothing where the format is broken."""
    return text.partition(EXPECTS)[2].partition(READS)[0]


def first_named(items: Sequence[Item]) -> Named:
    """Return what the rule finds that always names the name that stands first."""
    is_first = np.array([item.is_first for item in items], bool)
    return np.column_stack([is_first, ~is_first])


def above(logits: NDArray[np.floating[Any]], tokens: NDArray[np.int64]) -> Named:
    """Return which name's token, (items, 2), has the higher logit of (items, vocabulary)."""
    both = np.take_along_axis(logits, tokens, axis=1)
    is_object = both[:, 0] > both[:, 1]
    return np.column_stack([is_object, ~is_object])


def tests(found: Mapping[str, tuple[Named, Named]]) -> list[Test]:
    """Return every method's tests, from what it names of originals and of swapped items.

    The second asks about one name that stands in both prompts of a pair: is it named rather where it is the
    indirect object? A method that likes some names, or the place where they stand, is no better for it.
    """
    rows = []
    for method, (original, swapped) in found.items():
        rows.append(
            sign_test(method, "indirect object rather than subject", original[:, 0], original[:, 1])
        )
        # The original's indirect object is the subject of the swapped item.
        rows.append(
            sign_test(
                method, "the same name, as object rather than as subject", original[:, 0], swapped[:, 1]
            )
        )
    return rows


def text(rows: Sequence[Test], solved: Rate) -> str:
    """Render the tests."""
    lines = [f"pairs; the model solves {shown(solved)} of the pairs, both ways round"]
    lines.append(
        f"  {'method':26}{'question':50}{'wins of those that differ':38}{'pairs':7}{'p':10}finding"
    )
    lines += [
        f"  {row.method:26}{row.question:50}{_wins(row):38}{row.pairs:<7}{row.p_value:<10.2g}{row.finding}"
        for row in rows
    ]
    return "\n".join(lines)


def _wins(row: Test) -> str:
    return shown(row.wins) if row.wins.n else "none differ"


def document(rows: Sequence[Test], solved: Rate, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything as one JSON object."""
    return {
        **setting,
        "solved": solved._asdict(),
        "tests": [
            # JSON has no word for the share of nothing.
            {**row._asdict(), "wins": row.wins._asdict() if row.wins.n else None, "finding": row.finding}
            for row in rows
        ],
    }


def solved_pairs(pairs: Sequence[Pair], originals: Named, swapped: Named) -> list[Pair]:
    """Return the pairs of which the model solves both items."""
    is_solved = originals[:, 0] & swapped[:, 0]
    return [pair for pair, good in zip(pairs, is_solved.tolist(), strict=True) if good]
