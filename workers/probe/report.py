"""What a fitted probe's report says, as text and as the card in its file. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from workers.calibrate import rates
from workers.nla.fidelity import Interval
from workers.probe.fit import Figures, Fitted, Requests, Rule


def card_of(fitted: Fitted, requests: Requests, rule: Rule, *, sampled: dict[str, Any]) -> dict[str, Any]:
    """Return the card: what the probe was fitted and measured on, and what came out, as JSON."""
    is_prompt = requests.has_text
    return {
        "positives": int(requests.is_positive.sum()),
        "negative_prompts": int((is_prompt & ~requests.is_positive).sum()),
        "benign_requests": int((~is_prompt).sum()),
        "median_tokens": {
            "positive": float(np.median(requests.tokens[requests.is_positive])),
            "negative": float(np.median(requests.tokens[is_prompt & ~requests.is_positive])),
        },
        "positions": len(requests.vectors),
        "sampled": sampled,
        **rule._asdict(),
        "held_out": {
            "probe": _json(fitted.measured),
            "probe_on_prompts": _json(fitted.on_prompts),
            "text_classifier": _json(fitted.text_classifier),
        },
    }


def describe(fitted: Fitted, requests: Requests, rule: Rule) -> Iterator[str]:
    """Yield the report's lines."""
    rate = f"{rule.false_positive_rate:g}"
    yield f"probe {fitted.probe.name}: {fitted.probe.model}, output of block {fitted.probe.layer}"
    measured = fitted.measured
    yield (
        f"threshold {fitted.probe.threshold:.4f} at {rule.positions_required} positions:"
        f" {measured.allowed} of {measured.negatives} held-out negatives may exceed it; their rate is at"
        f" most {measured.upper_limit:.4f} (95%, one-sided)"
    )
    yield from _lines("probe", measured, rate)
    if (~requests.has_text).any():
        yield from _lines("probe, prompts alone", fitted.on_prompts, rate)
    yield from _lines("text classifier, prompts alone", fitted.text_classifier, rate)
    yield from _warnings(fitted, requests, rule)


def _lines(method: str, figures: Figures, rate: str) -> Iterator[str]:
    of = f"{figures.positives} positives, {figures.negatives} negatives held out"
    if figures.recall is None:
        yield f"{method}: no recall at {rate}, too few negatives; AUROC {figures.auroc:.3f} ({of})"
        return
    yield f"{method}: recall at {rate} {_told(figures.recall)}; AUROC {figures.auroc:.3f} ({of})"
    for bucket, recall in figures.by_length.items():
        yield f"  {bucket}: {_told(recall)}"


def _warnings(fitted: Fitted, requests: Requests, rule: Rule) -> Iterator[str]:
    lengths: Sequence[float] = [
        float(np.median(requests.tokens[requests.has_text & (requests.is_positive == is_positive)]))
        for is_positive in (True, False)
    ]
    if max(lengths) > 2 * min(lengths):
        yield (
            f"note: positives have {lengths[0]:g} tokens in the median and negatives {lengths[1]:g}: the"
            " probe may tell lengths; write prompts of the same kind"
        )
    needed = rates.requests_needed(rule.false_positive_rate)
    if fitted.measured.upper_limit > 2 * rule.false_positive_rate:
        yield (
            f"note: {needed} held-out negatives, none above the threshold, would show a rate of at most"
            f" {rule.false_positive_rate:g}; flags are leads until `subtext calibrate concepts`"
        )


def _told(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f}, n {interval.n})"


def _json(figures: Figures) -> dict[str, Any]:
    return {
        "recall": None if figures.recall is None else figures.recall.as_dict(),
        "recall_by_length": {bucket: one.as_dict() for bucket, one in figures.by_length.items()},
        "auroc": round(figures.auroc, 4),
        "positives": figures.positives,
        "negatives": figures.negatives,
        "false_positive_upper_limit": round(figures.upper_limit, 5),
    }
