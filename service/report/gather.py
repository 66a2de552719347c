"""Gather a report's figures: each is what a call of the API answers, and says which."""

import datetime as dt
from importlib.metadata import version
from typing import Final

from sqlalchemy.orm import Session

from service.api.routes import detectors, prevalence, statement
from service.api.routes import history as routes
from service.api.schemas.history import DetectorList, Times, TriageSummary
from service.api.schemas.prevalence import PrevalenceReport
from service.api.schemas.statement import CoverageStatement, Interval, ModelStatement
from service.incidents.clocks import TERMS
from service.incidents.lifecycle import State
from service.report.limits import cannot_say, not_looked_at
from service.report.model import Bounds, Figure, Report, Section, Table, absent, share
from service.report.period import Period, minute
from service.store.read import history, windows

HEADINGS: Final = (
    "The first six headings are the categories of post-deployment monitoring of NIST AI 800-4, Challenges "
    "to the Monitoring of Deployed AI Systems (March 2026), "
    "https://nvlpubs.nist.gov/nistpubs/ai/NIST.AI.800-4.pdf. NIST prescribes no such report."
)
_BY_HOUR_UP_TO: Final = dt.timedelta(days=2)
_PREVALENCE_UP_TO: Final = dt.timedelta(days=31)
_LISTED_CLOCKS: Final = 200


def gather(session: Session, period: Period, now: dt.datetime) -> Report:
    """Return the report as it is known now; raises ProblemError for a period that is empty or too long."""
    asked = {"from": period.start, "to": period.end, "model": period.model}
    by = "hour" if period.end - period.start <= _BY_HOUR_UP_TO else "day"
    covered = statement.state(
        session, statement.StatementParameters.model_validate({**asked, "resolution": by}), now
    )
    performed = detectors.performance(session, detectors.DetectorParameters.model_validate(asked))
    triaged = routes.summarize(session, routes.TriageParameters.model_validate(asked))
    coverage_call = period.call("coverage/statement", resolution=by)
    return Report(
        title="Post-market monitoring report",
        model=period.model,
        start=period.start,
        end=period.end,
        as_of=now,
        version=version("subtext"),
        headings=HEADINGS,
        sections=[
            _functionality(period, performed),
            _operational(covered, coverage_call),
            _human_factors(period, triaged),
            _security(session, period, covered),
            _compliance(session, period, now, covered),
            _impacts(session, period, performed),
            not_looked_at(covered, coverage_call),
            cannot_say(performed),
        ],
    )


def _functionality(period: Period, found: DetectorList) -> Section:
    call = period.call("detectors")
    figures: list[Figure] = []
    for one in found.items:
        name = f"{one.model}, {one.concept}, layer {one.layer}, decoder {one.decoder.name}"
        label = f"{name}: labelled precision"
        if one.precision is None:
            figures.append(absent(label, f"not known: none of {one.raised:,} flags is labelled", call))
        else:
            bounds = Bounds(
                lower=one.precision.lower, upper=one.precision.upper, confidence=one.precision.confidence
            )
            figures.append(
                share(label, one.confirmed, one.precision.labelled, "labelled flags", call, interval=bounds)
            )
        rate = one.false_positive_rate
        label = f"{name}: false-positive rate of its rule"
        if rate is None:
            figures.append(absent(label, "not known: not calibrated, so its flags are leads", call))
        else:
            figures.append(
                Figure(
                    label=label,
                    value=rate.estimate,
                    denominator=rate.requests,
                    of="benign requests",
                    interval=Bounds(lower=None, upper=rate.upper, confidence=0.95),
                    query=call,
                )
            )
    return Section(
        heading="1 Functionality",
        text="Whether the detectors work as they are meant to. Recall is under 4, with the canaries.",
        figures=figures,
        notes=[] if figures else ["No detector raised a flag in this period."],
    )


def _operational(covered: CoverageStatement, call: str) -> Section:
    figures: list[Figure] = []
    for one in covered.models:
        sampled, decoded, minutes = one.totals.requests_sampled, one.totals.rows_decoded, one.minutes
        figures += [
            share(
                f"{one.model}: requests sampled",
                sampled.numerator,
                sampled.denominator,
                "requests seen",
                call,
            ),
            share(
                f"{one.model}: activations decoded",
                decoded.numerator,
                decoded.denominator,
                "activations sampled",
                call,
            ),
            *(
                share(
                    f"{one.model}: activations {what}",
                    count,
                    decoded.denominator,
                    "activations sampled",
                    call,
                )
                for what, count in (
                    ("thinned by chance", one.totals.rows_thinned),
                    ("dropped", one.totals.rows_dropped),
                    ("set aside as unusable", one.totals.rows_dead_lettered),
                    ("of a sample that was stored before", one.totals.rows_duplicate),
                )
            ),
            _unsettled(one, call),
            share(
                f"{one.model}: minutes with traffic", minutes.with_traffic, minutes.total, "minutes", call
            ),
            share(
                f"{one.model}: minutes of which nobody reported",
                minutes.nobody_reported,
                minutes.total,
                "minutes",
                call,
            ),
            share(
                f"{one.model}: hops that balance",
                sum(equation.balanced for equation in one.equations),
                len(one.equations),
                "hops checked",
                call,
            ),
        ]
    violated = [
        [one.model, equation.hop, equation.equation, f"{equation.rows_in:,}", f"{equation.difference:,}"]
        for one in covered.models
        for equation in one.equations
        if not equation.balanced
    ]
    table = Table(
        title="Hops whose counts do not add up",
        columns=("model", "hop", "must hold", "rows in", "difference"),
        rows=violated,
        note="Of the rows in, so many have no counted outcome; a negative number: counts were lost.",
        query=call,
    )
    return Section(
        heading="2 Operational",
        text="Whether the audit itself was at work, and how much of what it sampled it read.",
        figures=figures,
        tables=[table] if violated else [],
        notes=[] if figures else ["No audited model is in the store: nothing was looked at."],
    )


def _unsettled(one: ModelStatement, call: str) -> Figure:
    label, count = f"{one.model}: activations without any counted outcome", one.totals.rows_unsettled
    if count < 0:
        return absent(label, f"not known: {-count:,} more outcomes than samples were counted", call)
    return share(label, count, one.totals.rows_decoded.denominator, "activations sampled", call)


def _human_factors(period: Period, found: TriageSummary) -> Section:
    call = period.call("triage")
    reviewed, decided = found.to_first_review, found.to_decision
    return Section(
        heading="3 Human factors",
        text="How people dealt with what was found. Times are of those incidents that somebody reviewed or "
        "decided; those that still wait make the real times longer.",
        figures=[
            *_times("to the first review", reviewed, call),
            share(
                "Incidents that nobody reviewed yet",
                found.not_reviewed.numerator,
                found.opened,
                "incidents opened",
                call,
            ),
            *_times("to the decision", decided, call),
            share(
                "Incidents without a decision yet",
                found.not_decided.numerator,
                found.opened,
                "incidents opened",
                call,
            ),
            *(
                share(
                    f"Decided {one.to} ({one.reason_code}), and overridden later",
                    one.overridden.numerator,
                    one.decisions,
                    "such decisions",
                    call,
                )
                for one in found.decisions
            ),
            share(
                "Decisions that were overridden",
                found.overridden.numerator,
                found.overridden.denominator,
                "decisions",
                call,
            ),
        ],
    )


def _times(what: str, found: Times, call: str) -> list[Figure]:
    if not found.incidents:
        return [absent(f"Median time {what}", "not known: 0 incidents", call)]
    return [
        Figure(
            label=f"{name} time {what}",
            value=seconds,
            unit="seconds",
            denominator=found.incidents,
            of="incidents",
            query=call,
        )
        for name, seconds in (
            ("Median", found.median_seconds),
            ("90th percentile of the", found.p90_seconds),
            ("Longest", found.longest_seconds),
        )
    ]


def _security(session: Session, period: Period, covered: CoverageStatement) -> Section:
    call = period.call("coverage/statement")
    figures = [figure for one in covered.models for figure in _recalls(one, call)]
    figures += [
        share(
            f"{tested.model}, decoder {tested.decoder} ({tested.digest[:12]}): requests that are "
            f"anomalies, at a false discovery rate of {tested.fdr:g}",
            tested.discoveries,
            tested.requests,
            "requests tested",
            windows.query(period.start, period.end, tested.model),
        )
        for tested in windows.count_tested(session, period.start, period.end, period.model)
    ]
    return Section(
        heading="4 Security",
        text="Whether misuse would be told. Recall is that of the operator's control prompts, not of "
        "misuse as it is; an anomaly is unusual, not harmful.",
        figures=figures,
    )


def _recalls(one: ModelStatement, call: str) -> list[Figure]:
    if one.canaries.status != "ran":
        why = {
            "none_ran": "not known: no canary ran",
            "results_not_kept": "not known: canaries ran, and their results were not kept",
        }[one.canaries.status]
        return [absent(f"{one.model}: recall on canaries", why, call)]
    figures: list[Figure] = []
    for recall in one.canaries.concepts:
        name = f"{one.model}, {recall.concept}"
        sent = recall.read + recall.lost
        figures += [
            share(
                f"{name}: recall on canaries",
                recall.flagged,
                recall.read,
                "canaries read",
                call,
                interval=_bounds(recall.recall),
            ),
            share(f"{name}: canaries lost", recall.lost, sent, "canaries sent", call),
            share(
                f"{name}: negative canaries lost",
                recall.negative_lost,
                recall.negative_read + recall.negative_lost,
                "negative canaries sent",
                call,
            ),
            share(
                f"{name}: false alarms on negative canaries",
                recall.negative_flagged,
                recall.negative_read,
                "negative canaries read",
                call,
                interval=_bounds(recall.false_alarms),
            ),
        ]
    return figures


def _bounds(found: Interval | None) -> Bounds | None:
    if found is None:
        return None
    return Bounds(lower=found.lower, upper=found.upper, confidence=found.confidence)


def _compliance(session: Session, period: Period, now: dt.datetime, covered: CoverageStatement) -> Section:
    wanted = history.Filter(start=period.start, end=period.end, model=period.model)
    page = history.list_clocked(session, wanted, State.CONFIRMED, None, _LISTED_CLOCKS)
    listed = [routes.clocked(view, now) for view in page.items]
    call = period.call("reporting-clocks", state="confirmed", limit=str(_LISTED_CLOCKS))
    table = Table(
        title="Confirmed incidents and the terms of AI Act, Article 73",
        columns=(
            "incident",
            "model",
            "severity",
            "confirmed",
            *(f"{term.days} days" for term in TERMS.values()),
        ),
        rows=[
            [
                str(one.incident_id),
                one.model,
                one.severity,
                minute(one.confirmed_at) or "not recorded",
                *(minute(due.from_confirmation) + (" (past)" if due.is_overdue else "") for due in one.due),
            ]
            for one in listed
        ],
        note="Opened in this period. Which of them is a serious incident, of which class, when the "
        "provider became aware, and whether a report was made is not recorded here: all terms are told."
        + (" More than 200: the call lists the rest." if page.next else ""),
        query=call,
    )
    return Section(
        heading="5 Compliance",
        text="What regulation may ask of this period. It is no legal assessment."
        + ("" if listed else " No incident that was opened in this period is confirmed.")
        + f" Legal holds in force now that reach into the period: {len(covered.legal_holds)}."
        + f" Retention runs that removed readings of it: {len(covered.removals)}.",
        figures=_requests(covered, period.call("coverage/statement")),
        tables=[table] if listed else [],
    )


def _requests(covered: CoverageStatement, call: str) -> list[Figure]:
    """Return what people asked of the store: to erase, and to keep."""
    asked = covered.erasures
    return [
        share("Open erasures, now", asked.open, asked.total, "requests for erasure ever made", call),
        share("Erasures past their 30 days, now", asked.overdue, asked.open, "open erasures", call),
        share("Erasures kept open by a legal hold, now", asked.held, asked.open, "open erasures", call),
    ]


def _impacts(session: Session, period: Period, found: DetectorList) -> Section:
    figures: list[Figure] = []
    concepts = sorted({(one.model, one.concept) for one in found.items})
    for model, concept in concepts:
        call = period.call("prevalence", model=model, concept=concept)
        label = f"{model}, {concept}: share of requests"
        if period.end - period.start > _PREVALENCE_UP_TO:
            figures.append(absent(label, "not estimated over more than 31 days", call))
            continue
        asked = {"model": model, "concept": concept, "from": period.start, "to": period.end}
        parameters = prevalence.PrevalenceParameters.model_validate(asked)
        figures += _prevalences(label, prevalence.estimate_share(session, parameters), call)
    return Section(
        heading="6 Large-scale impacts",
        text="How common the concepts that were flagged are in the traffic. Flagged is not harmful, and a "
        "share below the false-positive rate says nothing.",
        figures=figures,
        notes=[] if figures else ["No concept was flagged in this period, so no share is estimated."],
    )


def _prevalences(label: str, found: PrevalenceReport, call: str) -> list[Figure]:
    figures = []
    for one in found.estimates:
        name = f"{label}, layer {one.layer}, decoder {one.decoder.name}" + (
            "" if found.calibrated else " (not calibrated: leads)"
        )
        if one.estimate is None:
            figures.append(absent(name, "not known: 0 requests judged", call))
            continue
        figures.append(
            Figure(
                label=name,
                value=one.estimate,
                numerator=one.requests_flagged,
                denominator=one.requests,
                of="requests judged of the random baseline; the share is weighted",
                interval=Bounds(lower=one.lower, upper=one.upper, confidence=found.confidence),
                query=call,
            )
        )
    return figures or [absent(label, "not known: 0 requests judged", call)]
