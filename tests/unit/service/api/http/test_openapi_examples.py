"""What the REST description shows as examples can occur: some process says every word in them."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import jsonschema_rs
import pytest
import yaml

from service.api.http import openapi
from service.api.vocabulary import AssigneeKind
from service.auth import Role, Scope
from service.coverage import blind_spots
from service.evidence.bundle.layout import RowFormat
from service.exports.query import ExportKind
from service.incidents import lifecycle
from service.store import migrate
from service.store.access.tables import Action, Purpose, Result
from service.store.exports.tables import State as ExportState
from service.store.tables import FlagStatus
from subtext_sidecar.anomaly.score import ANOMALY_SCORES
from subtext_sidecar.contract import configuration, facts
from subtext_sidecar.contract.counters import COUNTERS, Hop, Stratum, loss_of
from subtext_sidecar.plugin.sampling import rule as sampling
from tests.support import ROOT
from workers.judge.concepts import Concept, MatcherKind
from workers.nla.decoder import PositionClass
from workers.training.data.labels import ANSWER, QUESTION

TAXONOMY = yaml.safe_load((ROOT / "deploy/decoders/taxonomy.yaml").read_text())
CONCEPTS = yaml.safe_load((ROOT / "deploy/concepts.yaml").read_text())["concepts"]

AREAS = set(TAXONOMY["areas"])
KINDS = {kind["name"] for kind in TAXONOMY["kinds"]}
REASONS = {*get_args(sampling.Reason), "screen_anomaly"}
DOCUMENT = json.loads(openapi.document())
OPERATION_IDS = [
    described["operationId"] for methods in DOCUMENT["paths"].values() for described in methods.values()
]
CONCEPT_NAMES = {concept["name"] for concept in CONCEPTS}

# By field, every value that the code can answer with; of a mapping, its keys; of a list, its entries.
WORDS: dict[str, set[str]] = {
    "action": {*map(str, Action)},
    "area": AREAS,
    "areas": AREAS,
    "assignee": set(get_args(AssigneeKind)),
    "concept": CONCEPT_NAMES,
    "concepts": CONCEPT_NAMES,
    "confirmed_concepts": CONCEPT_NAMES,
    "hop": {*map(str, Hop)},
    "kind": KINDS,
    "kind_scores": KINDS,
    "kinds": KINDS,
    "labels": CONCEPT_NAMES,
    "matcher": set(get_args(MatcherKind)),
    "operation": set(OPERATION_IDS),
    "phase": set(get_args(facts.Phase)),
    "position_class": set(get_args(PositionClass)),
    "purpose": {*map(str, Purpose)},
    "reason": REASONS,
    "result": {*map(str, Result)},
    "role": set(get_args(facts.Role)),
    "roles": {*map(str, Role)},
    "reason_code": {*map(str, lifecycle.Reason)},
    "register": {QUESTION, ANSWER, *(register["name"] for register in TAXONOMY["registers"])},
    "scopes": {*map(str, Scope)},
    "screen_scores": set(ANOMALY_SCORES),
    "severity": set(get_args(Concept.model_fields["severity"].annotation)),
    "stratum": {*map(str, Stratum)},
    "to": {*map(str, lifecycle.State)},
    "topic": set(TAXONOMY["topics"]),
    "verified_above": set(get_args(PositionClass)),
}
LOSS_REASONS = {lost.reason for counter in COUNTERS if (lost := loss_of(counter))}
WORDS_OF_SCHEMA: dict[tuple[str, str], set[str]] = {
    ("AccessRight", "role"): {*map(str, Role)},
    ("ListedKey", "role"): {*map(str, Role)},
    ("RevokedKey", "role"): {*map(str, Role)},
    ("BlindSpot", "code"): set(blind_spots.CODES),
    **{
        (schema, "kind"): {*map(str, configuration.Kind)}
        for schema in (
            "ConfigurationChange",
            "ConfigurationPair",
            "ConfigurationVersion",
            "KindInForce",
            "VersionInForce",
        )
    },
    ("Export", "kinds"): {*map(str, ExportKind)},
    ("Export", "state"): {*map(str, ExportState)},
    ("Export", "format"): {*map(str, RowFormat)},
    ("ExportRequest", "kinds"): {*map(str, ExportKind)},
    ("Flag", "status"): {*map(str, FlagStatus)},
    ("Loss", "reason"): LOSS_REASONS,
    ("StepLoss", "reason"): LOSS_REASONS,
}
# Names, ids, counters and prose: no vocabulary has them.
FREE = {
    "code",
    "counters",
    "counts",
    "destination",
    "detail",
    "digest",
    "event",  # its schema lists them
    "expects",
    "field",
    "issuer",
    "identifier",
    "key_name",
    "label",
    "location",  # its schema lists them
    "models",
    "problem",
    "model",
    "name",
    "person",
    "plugin",  # a digest
    "proof",
    "request_id",
    "rows_in",
    "rows_out",
    "source",
    "span_id",
    "span_ids",
    "subject",
    "subject_id",
    "tenant",
    "text",
    "title",
    "token_text",
    "trace_id",
    "type",
    "url",
    "what",
    "worker",  # a digest
}


class Example(NamedTuple):
    """One example of one field, and the schema of the field."""

    schema: str
    field: str
    value: Any
    rule: dict[str, Any]


def examples() -> Iterator[Example]:
    for schema, described in DOCUMENT["components"]["schemas"].items():
        for field, rule in described.get("properties", {}).items():
            for value in rule.get("examples", []):
                yield Example(schema, field, value, rule)


EXAMPLES = list(examples())


def examples_of(field: str, schema: str | None = None) -> list[Any]:
    found = [one.value for one in EXAMPLES if one.field == field and schema in {None, one.schema}]
    assert found
    return found


def words_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [word for word in value if isinstance(word, str)] if isinstance(value, dict | list) else []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.schema}.{one.field}")
def test_an_example_is_of_its_type_and_says_nothing_that_cannot_be_said(example: Example) -> None:
    jsonschema_rs.validate(example.rule, example.value)
    words = set(words_of(example.value))
    known = WORDS_OF_SCHEMA.get((example.schema, example.field)) or WORDS.get(example.field)

    if known is None:
        assert not words or example.field in FREE, f"say in WORDS or FREE what {example.field} may hold"
    else:
        assert words <= known


def test_every_screened_row_shows_both_measures_of_the_anomaly() -> None:
    for scores in examples_of("screen_scores"):
        assert set(scores) >= set(ANOMALY_SCORES)


def test_the_anomaly_is_one_that_its_calibration_can_give() -> None:
    fields = ("score", "p_value", "p_value_floor", "calibration_n")
    score, p_value, floor, calibration_n = (examples_of(field, "Anomaly")[0] for field in fields)

    # Sidecar and worker have one detector: a row has one score and one p-value.
    assert {"anomaly": score, "anomaly_p_value": p_value} in examples_of("screen_scores")
    assert floor == pytest.approx(1 / (calibration_n + 1), rel=0.01)
    rank = p_value * (calibration_n + 1)
    assert rank == pytest.approx(round(rank), abs=0.05)


def test_the_decoder_reads_the_layer_of_its_run_file() -> None:
    for name in examples_of("name", "Decoder") + examples_of("name", "DecoderReference"):
        run = yaml.safe_load((ROOT / f"deploy/decoders/{name}/run.yaml").read_text())
        assert {*examples_of("layer")} == {run["layer"]}
        assert examples_of("layers") == [[run["layer"]]]
        assert {*examples_of("name", "Model"), *examples_of("model")} == {run["model_name"]}


def test_thresholds_are_those_of_one_decoder() -> None:
    (thresholds,) = examples_of("verified_above", "Decoder")
    (position_class,) = examples_of("position_class", "Fidelity")

    assert examples_of("verified_above", "Fidelity") == [thresholds[position_class]]
    assert {*examples_of("shuffled_fve_p95")} == {max(thresholds.values())}


def test_a_flag_has_the_severity_of_its_concept() -> None:
    severities = {concept["name"]: concept["severity"] for concept in CONCEPTS}

    assert examples_of("severity", "Flag") == [severities[name] for name in examples_of("concept", "Flag")]


def test_the_schema_is_shown_at_its_head() -> None:
    (detail,) = examples_of("detail", "Check")

    assert re.findall(r"\d+", detail) == [migrate.head_revision()] * 2
