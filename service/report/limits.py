"""The sections on what was not looked at, and on what no figure of a report can say."""

from typing import Final

from service.api.schemas.history import DetectorList
from service.api.schemas.statement import CoverageStatement, ModelStatement
from service.report.model import Section, Table
from service.report.period import minute

_LISTED_GAPS: Final = 40
_HYPOTHESIS: Final = (
    "An explanation is a hypothesis. Fidelity tells that the decoder works on an activation; it never "
    "tells that a claim in the text is true."
)
_DENOMINATORS: Final = (
    "Labelled precision is of the flags that people chose to label, recall of the operator's own prompts, "
    "and a calibrated rate of the calibration's benign requests. None is of all traffic."
)


def not_looked_at(covered: CoverageStatement, call: str) -> Section:
    """Return the section on hours, gaps and blind spots."""
    tables = []
    for one in covered.models:
        tables += [_steps(one, covered, call), _gaps(one, call)]
    spots = Table(
        title="Blind spots",
        columns=("code", "what was not looked at", "requests, positions or rows"),
        rows=[
            [spot.code, spot.detail, "cannot be counted" if spot.count is None else f"{spot.count:,}"]
            for spot in covered.blind_spots
        ],
        note="Counts are of this period; docs/counters.md says what each counts.",
        query=call,
    )
    return Section(
        heading="7 What was not looked at",
        text="Without a flag, nothing is known of what was not sampled, was lost, or came unreported.",
        tables=[*tables, spots],
    )


def _steps(one: ModelStatement, covered: CoverageStatement, call: str) -> Table:
    return Table(
        title=f"{one.model} by {covered.resolution}",
        columns=(
            "from",
            "sampled of requests",
            "decoded of activations",
            "lost",
            "no traffic",
            "nobody reported",
        ),
        rows=[
            [
                minute(step.start),
                f"{step.requests_sampled.numerator:,} of {step.requests_sampled.denominator:,}",
                f"{step.rows_decoded.numerator:,} of {step.rows_decoded.denominator:,}",
                f"{step.rows_dropped + step.rows_dead_lettered:,} of {step.rows_decoded.denominator:,}",
                f"{step.minutes.no_traffic:,} of {step.minutes.total:,} min",
                f"{step.minutes.nobody_reported:,} of {step.minutes.total:,} min",
            ]
            for step in one.steps
        ],
        query=call,
    )


def _gaps(one: ModelStatement, call: str) -> Table:
    longest = sorted(one.gaps, key=lambda gap: -gap.minutes)[:_LISTED_GAPS]
    return Table(
        title=f"{one.model}: the longest {len(longest):,} of {one.gaps_total:,} gaps",
        columns=("from", "to", "minutes", "reason"),
        rows=[
            [minute(gap.start), minute(gap.end), f"{gap.minutes:,} of {one.minutes.total:,}", gap.reason]
            for gap in sorted(longest, key=lambda gap: gap.start)
        ],
        query=call,
    )


def cannot_say(found: DetectorList) -> Section:
    """Return the section on what every figure leaves open."""
    leads = sum(one.false_positive_rate is None for one in found.items)
    uncalibrated = (
        f"{leads:,} of {len(found.items):,} detectors with flags are not calibrated: their flags are "
        "leads, and how often they are wrong on benign requests is not known."
    )
    return Section(
        heading="8 What this report cannot say",
        text="Read every number with these.",
        notes=[
            _HYPOTHESIS,
            uncalibrated,
            _DENOMINATORS,
            "What was not sampled was not looked at; what the decoder cannot put into words is missing.",
            "What Alertmanager sent, silenced and resolved is in its own history.",
            "What was erased or removed is counted where its runs are, and is in no other figure any more.",
            "Nothing here is signed: whoever can write to the store can change what it says.",
        ],
    )
