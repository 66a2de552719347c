"""Every PromQL query that this deployment ships, and whether a running pipeline can answer it.

The alert rules and the dashboard are data; this module reads them, extracts each metric selector
with a PromQL parser, and resolves it against the text of real /metrics pages.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

DEPLOY_DIR = Path(__file__).resolve().parent
RULES_DIR = DEPLOY_DIR / "prometheus" / "rules"
DASHBOARDS_DIR = DEPLOY_DIR / "grafana" / "dashboards"

# Prometheus itself makes these and adds these labels at scrape time.
_SYNTHETIC_METRICS = frozenset({"up", "ALERTS", "scrape_duration_seconds"})
_TARGET_LABELS = frozenset({"job", "instance"})
_GRAFANA_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression and where it stands."""

    source: str  # e.g. "rules/alerts.yml: SubtextAuditBlind"
    expr: str
    record: str | None = None  # the series that a recording rule makes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One metric selector: a name and the labels that it matches on."""

    metric: str
    labels: frozenset[str]


def shipped_queries(rules_dir: Path = RULES_DIR, dashboards_dir: Path = DASHBOARDS_DIR) -> list[Query]:
    """Return every query of the rules and dashboards, in file order."""
    rules = [query for path in sorted(rules_dir.glob("*.yml")) for query in _rule_queries(path)]
    panels = [query for path in sorted(dashboards_dir.glob("*.json")) for query in _panel_queries(path)]
    return rules + panels


def selectors(expr: str) -> set[Selector]:
    """Return the metric selectors of a PromQL expression; raises ValueError when it does not parse."""
    return {
        Selector(
            metric=str(node.name), labels=frozenset(matcher.name for matcher in node.matchers.matchers)
        )
        for node in _nodes(promql_parser.parse(_without_variables(expr)))
        if isinstance(node, promql_parser.VectorSelector)
    }


def metric_names_used(queries: Iterable[Query]) -> set[str]:
    """Return the name of every metric that the queries read, recorded series included."""
    return {selector.metric for query in queries for selector in selectors(query.expr)}


def unresolved(queries: Iterable[Query], scrapes: Iterable[str]) -> list[str]:
    """Return one message for each selector that the scraped pages cannot answer.

    ``scrapes`` are the texts of /metrics pages. A recorded series resolves by its rule, whose own
    expression is checked like any other. A metric is known once its TYPE line is there, also before
    its first sample; matched labels are checked where there are samples to check.
    """
    queries = list(queries)
    recorded = {query.record for query in queries if query.record}
    labels_of = _exposed(scrapes)
    problems = []
    for query in queries:
        for selector in sorted(selectors(query.expr), key=lambda found: found.metric):
            if selector.metric in _SYNTHETIC_METRICS | recorded:
                continue
            if selector.metric not in labels_of:
                problems.append(f"{query.source}: no process exposes {selector.metric}")
                continue
            known = labels_of[selector.metric]
            unknown = selector.labels - known - _TARGET_LABELS if known else frozenset[str]()
            problems += [
                f"{query.source}: {selector.metric} has no label {name}" for name in sorted(unknown)
            ]
    return problems


def _rule_queries(path: Path) -> Iterator[Query]:
    for group in yaml.safe_load(path.read_text())["groups"]:
        for rule in group["rules"]:
            name = rule.get("alert") or rule["record"]
            yield Query(
                source=f"{path.parent.name}/{path.name}: {name}",
                expr=rule["expr"],
                record=rule.get("record"),
            )


def _panel_queries(path: Path) -> Iterator[Query]:
    dashboard = json.loads(path.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield Query(source=f"{path.name}: {panel['title']}", expr=target["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), *\w+\)", variable["query"]["query"])
            if found is None:
                raise ValueError(
                    f"{path.name}: variable {variable['name']} is not label_values(metric, label)"
                )
            yield Query(source=f"{path.name}: variable {variable['name']}", expr=found[1])


def _without_variables(expr: str) -> str:
    for variable, value in _GRAFANA_VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr  # "$model" stands inside quotes and parses as it is


def _nodes(node: Any) -> Iterator[Any]:
    """Yield the node and everything below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _nodes(child)
    for argument in getattr(node, "args", None) or ():
        yield from _nodes(argument)


def _exposed(scrapes: Iterable[str]) -> dict[str, set[str]]:
    """Return the labels seen with each sample name that the pages expose or announce."""
    labels_of: dict[str, set[str]] = {}
    for family in (family for page in scrapes for family in text_string_to_metric_families(page)):
        for suffix in _SUFFIXES.get(family.type, ("",)):
            labels_of.setdefault(family.name + suffix, set())
        for sample in family.samples:
            labels_of.setdefault(sample.name, set()).update(sample.labels)
    return labels_of


_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count", ""),
}
