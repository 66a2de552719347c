"""Scrape a process's metrics and compute their growth between two scrapes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_SECONDS = 5.0


class _Series(NamedTuple):
    name: str
    labels: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of one scrape, or their growth between two."""

    samples: Mapping[_Series, float]

    @classmethod
    def of(cls, text: str) -> Self:
        """Parse the Prometheus text format."""
        return cls(
            {
                _Series(sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def since(self, earlier: "Scrape") -> "Scrape":
        """Return every sample's growth, for counters and histograms."""
        return Scrape({key: value - earlier.samples.get(key, 0.0) for key, value in self.samples.items()})

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all series with this name and these labels, 0 without any."""
        return sum(self._matching(name, labels).values())

    def by(self, name: str, *label_names: str) -> dict[str, float]:
        """Return the nonzero sums by the labels' values, joined with colons."""
        sums: dict[str, float] = {}
        for series, value in self._matching(name, {}).items():
            labels = dict(series.labels)
            key = ":".join(labels.get(label, "") for label in label_names)
            sums[key] = sums.get(key, 0.0) + value
        return {key: value for key, value in sorted(sums.items()) if value}

    def median(self, histogram: str, **labels: str) -> float | None:
        """Return a histogram's median, interpolated within its bucket; None without observations."""
        counts: dict[float, float] = {}
        for series, value in self._matching(f"{histogram}_bucket", labels).items():
            bound = float(dict(series.labels)["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        return _median(sorted(counts.items()))

    def _matching(self, name: str, labels: Mapping[str, str]) -> dict[_Series, float]:
        required = set(labels.items())
        return {
            series: value
            for series, value in self.samples.items()
            if series.name == name and required <= series.labels
        }


def scrape(url: str) -> Scrape:
    """Scrape a metrics endpoint; raises httpx.HTTPError."""
    answer = httpx.get(url, timeout=_TIMEOUT_SECONDS, trust_env=False)
    answer.raise_for_status()
    return Scrape.of(answer.text)


def _median(cumulative: list[tuple[float, float]]) -> float | None:
    if not cumulative or not cumulative[-1][1]:
        return None
    half = cumulative[-1][1] / 2
    low, below = 0.0, 0.0
    for bound, count in cumulative:
        if count >= half:
            # The last bucket has no upper bound, so its lower bound is the best answer.
            return low if math.isinf(bound) else low + (bound - low) * (half - below) / (count - below)
        low, below = bound, count
    return None
