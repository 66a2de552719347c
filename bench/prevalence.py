"""Check that prevalence estimates are unbiased under sampling, screening, thinning and losses.

Simulates many days (see prevalence_traffic), compares each day's estimate with the truth, and checks the
coverage of the intervals. The last line is JSON.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from bench.prevalence_traffic import Day, fit_reference, simulate
from service.prevalence.estimate import SampledRows, estimate_prevalence, estimate_total

REPLICATIONS: Final = 500
COVERAGE: Final = (0.93, 0.97)
STANDARD_ERRORS: Final = 2.0


class Outcome(NamedTuple):
    """Results of one estimator over all replications."""

    name: str
    truth: float
    """Mean of the days' true prevalences."""
    error: float
    """Mean of estimate minus truth."""
    standard_error: float
    """Standard error of ``error``."""
    coverage: float
    """Share of days whose interval contains the truth."""
    total_error: float
    """Mean error of the estimated number of flagged rows, relative to the truth."""
    total_standard_error: float
    rows: float
    requests: float
    effective_rows: float

    @property
    def is_unbiased(self) -> bool:
        """Whether prevalence and total are both within two standard errors of the truth."""
        return (
            abs(self.error) <= STANDARD_ERRORS * self.standard_error
            and abs(self.total_error) <= STANDARD_ERRORS * self.total_standard_error
        )

    @property
    def is_covered(self) -> bool:
        """Whether the coverage is close to the nominal 95%."""
        return COVERAGE[0] <= self.coverage <= COVERAGE[1]


def replay(replications: int, seed: int) -> Iterator[Day]:
    """Yield independent days, reproducible by seed."""
    reference = fit_reference()
    for number in range(replications):
        yield simulate(reference, seed + number)


def compare(days: Iterable[Day]) -> list[Outcome]:
    """Return the results of both estimators: all rows, and only the rows of the random baseline."""
    columns: dict[str, list[list[float]]] = {"all rows": [], "baseline": []}
    for day in days:
        for name, rows in (("all rows", day.all_rows), ("baseline", day.baseline_rows)):
            columns[name].append(_figures(day, rows))
    return [_outcome(name, figures) for name, figures in columns.items()]


def _figures(day: Day, rows: SampledRows) -> list[float]:
    prevalence = estimate_prevalence(rows)
    return [
        day.prevalence,
        prevalence.estimate - day.prevalence,
        prevalence.lower <= day.prevalence <= prevalence.upper,
        estimate_total(rows).estimate / day.flagged - 1.0,
        prevalence.rows,
        prevalence.requests,
        prevalence.effective_rows,
    ]


def _outcome(name: str, figures: list[list[float]]) -> Outcome:
    table = np.asarray(figures)
    means = table.mean(axis=0)
    errors = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    return Outcome(
        name=name,
        truth=float(means[0]),
        error=float(means[1]),
        standard_error=float(errors[1]),
        coverage=float(means[2]),
        total_error=float(means[3]),
        total_standard_error=float(errors[3]),
        rows=float(means[4]),
        requests=float(means[5]),
        effective_rows=float(means[6]),
    )


def main(argv: Sequence[str]) -> int:
    """Print a table and the JSON line; return 0 if every bar is passed, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-prevalence", description=__doc__)
    parser.add_argument("--replications", type=int, default=REPLICATIONS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    options = parser.parse_args(list(argv))
    if options.replications < 2:  # noqa: PLR2004  # what a standard error needs
        parser.error("--replications must be at least 2")
    outcomes = compare(replay(options.replications, options.seed))
    print(
        f"{'estimate by':<12} {'truth':>7} {'error':>9} {'+-':>8} {'coverage':>9} "
        f"{'total err':>10} {'+-':>8} {'rows':>6} {'requests':>8} {'effective':>9}"
    )
    for one in outcomes:
        print(
            f"{one.name:<12} {one.truth:>7.4f} {one.error:>+9.5f} {one.standard_error:>8.5f} "
            f"{one.coverage:>9.3f} {one.total_error:>+10.4f} {one.total_standard_error:>8.4f} "
            f"{one.rows:>6.0f} {one.requests:>8.0f} {one.effective_rows:>9.0f}"
        )
    is_passed = all(one.is_unbiased and one.is_covered for one in outcomes)
    print(
        json.dumps(
            {
                "bench": "prevalence",
                "replications": options.replications,
                "seed": options.seed,
                "passed": is_passed,
                "estimates": [
                    one._asdict() | {"is_unbiased": one.is_unbiased, "is_covered": one.is_covered}
                    for one in outcomes
                ],
            }
        )
    )
    return 0 if is_passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
