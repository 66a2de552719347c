"""Figures of all tenants as one: no label tells them apart, and two may have models of one name. Pure."""

from collections.abc import Iterable, Mapping

from service.metrics import PrevalenceSample
from service.store.read.incidents import Undecided
from service.store.read.precision import Labels, Watched


def sum_undecided(found: Iterable[Undecided]) -> list[Undecided]:
    """Return the incidents of all by model, state and severity; the longest wait is anybody's."""
    total: dict[tuple[str, str, str], Undecided] = {}
    for one in found:
        key = (one.model, one.state, one.severity)
        known = total.get(key)
        if known is not None:
            times = [since for since in (known.waiting_since, one.waiting_since) if since is not None]
            one = one._replace(  # noqa: PLW2901  # the sum takes its place
                incidents=known.incidents + one.incidents, waiting_since=min(times, default=None)
            )
        total[key] = one
    return list(total.values())


def sum_labels(found: Iterable[Mapping[Watched, Labels]]) -> dict[Watched, Labels]:
    """Return the labels of all by model, layer and concept."""
    total: dict[Watched, Labels] = {}
    for labels in found:
        for watched, one in labels.items():
            known = total.get(watched, Labels(0, 0, 0))
            total[watched] = Labels(*map(sum, zip(known, one, strict=True)))
    return total


def highest(samples: Iterable[PrevalenceSample]) -> list[PrevalenceSample]:
    """Return one sample for each model, concept, layer and decoder: that with the highest bound.

    Shares of different traffic cannot be added, and an alert must not miss one behind the other.
    """
    found: dict[tuple[str, str, int, str], PrevalenceSample] = {}
    for sample in samples:
        key = (sample.model, sample.concept, sample.layer, sample.decoder)
        known = found.get(key, sample)
        higher = max(known, sample, key=lambda one: one.lower)
        found[key] = higher._replace(calibrated_lower=max(known.calibrated_lower, sample.calibrated_lower))
    return list(found.values())
