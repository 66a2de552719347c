"""No answer of the API carries a verdict without its label: every schema of every operation is walked.

A schema is a verdict when it has a field that only verdicts have (`MARKS`). It must then have, and require,
the fields that say how far it can be trusted. A schema that looks like one and is none stands in `EXEMPT`
with the reason, so a new verdict without a label fails here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.api.http import openapi
from tests.integration.service import seed

Headers = dict[str, str]
DOCUMENT: Final[Mapping[str, Any]] = openapi.unconnected_app().openapi()
SCHEMAS: Final[Mapping[str, Any]] = DOCUMENT["components"]["schemas"]

MARKS: Final = {
    "concept",
    "concepts",
    "severity",
    "text",
    "claims",
    "matches",
    "p_value",
    "is_anomalous",
    "precision",
    "flags",
    "prevalence",
    "topic",
    "areas",
    "kinds",
}
"""Fields that only what was found about a request or a concept has."""

LABELS: Final = (
    frozenset({"hypothesis", "false_positive_rate", "calibrated", "status"}),  # a flag
    frozenset({"hypothesis", "label", "fidelity"}),  # an explanation
    frozenset({"hypothesis", "verified", "verified_above", "fve"}),  # an explanation's figures, no text
    frozenset({"hypothesis", "label", "status", "flags"}),  # an incident
    frozenset({"hypothesis", "label", "status", "due"}),  # an incident's terms
    frozenset({"hypothesis", "label", "findings"}),  # what happened to one, each finding with its rate
    frozenset({"concept", "read", "lost", "recall"}),  # of control prompts, with their number
    frozenset({"label", "status", "unlabelled", "precision"}),  # a concept's precision
    frozenset({"calibrated", "confidence", "estimates", "assumptions"}),  # how common a concept is
    frozenset({"hypothesis", "before", "after", "difference"}),  # the same on two sides of a time
    frozenset({"p_value", "p_value_adjusted", "lower", "upper"}),  # a difference, with its test
    frozenset({"p_value", "p_value_floor", "calibration_n"}),  # an anomaly
    frozenset({"hypothesis", "label", "q_value", "window"}),  # the test of a request
    frozenset({"scope", "reason", "placed_at", "lifts"}),  # a hold: what to keep, whatever it is
    frozenset({"status", "not_calibrated_because", "false_positive_rate", "flagged"}),  # a version
    frozenset({"concept", "versions"}),  # a concept, each version with its status and rate
    frozenset({"hypothesis", "label", "readings"}),  # what readings say together
)
"""What a verdict must carry: all fields of at least one set."""

EXEMPT: Final = {
    "Claims": "within an explanation or a summary",
    "ConceptMatch": "within an explanation, and says that a match is no flag",
    "HoldScope": "within a hold: what somebody asked to keep, and nothing that was found",
    "EvidencePosition": "wraps an explanation, which carries its label",
    "IncidentEvent": "history of an incident: what was said and done, with each finding's rate",
    "TestedPosition": "within the test of a request",
    "PooledKind": "within a summary of readings",
}
"""Parts of labelled schemas; `test_a_part_is_only_shown_within_a_label` holds them to that."""


def reference(schema: Any) -> str | None:
    return str(schema["$ref"]).rsplit("/", 1)[-1] if isinstance(schema, dict) and "$ref" in schema else None


def children(schema: Any) -> Iterator[str]:
    """Yield the names of the schemas that this one holds."""
    name = reference(schema)
    if name is not None:
        yield name
    elif isinstance(schema, dict):
        for value in schema.values():
            yield from children(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from children(value)


def answers() -> dict[str, set[str]]:
    """Return the schemas that each operation may answer with, on success, however deep."""
    found: dict[str, set[str]] = {}
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1/"):
                continue
            names: set[str] = set()
            waiting = [
                name
                for code, response in operation["responses"].items()
                if code.startswith("2")
                for name in children(response.get("content", {}))
            ]
            while waiting:
                name = waiting.pop()
                if name not in names:
                    names.add(name)
                    waiting.extend(children(SCHEMAS[name]))
            found[f"{method} {path}"] = names
    return found


ANSWERS: Final = answers()


def marks(name: str) -> set[str]:
    """Return the schema's fields that make it a verdict; one that only holds other schemas does not."""
    properties = SCHEMAS[name].get("properties", {})
    return {field for field, schema in properties.items() if field in MARKS and not set(children(schema))}


ASKED: Final = {"Export"}
"""What somebody asked for, in the words of what is found: no verdict."""
VERDICTS: Final = sorted(name for name in set().union(*ANSWERS.values()) - ASKED if marks(name))


def test_every_operation_answers_with_schemas_that_can_be_walked() -> None:
    assert {operation for operation, names in ANSWERS.items() if not names} == {
        "get /v1/log/checkpoint",
        "get /v1/exports/{export_id}/download",
    }
    assert {"Flag", "Explanation", "Incident", "IncidentReport", "ConceptPrecision", "Anomaly"} <= set(
        VERDICTS
    )


@pytest.mark.parametrize("name", sorted(set(VERDICTS) - set(EXEMPT)))
def test_no_verdict_comes_without_its_label(name: str) -> None:
    present = set(SCHEMAS[name]["properties"])

    assert any(labels <= present for labels in LABELS), (
        f"{name} has {sorted(marks(name))} and none of the sets of LABELS: give it the label fields, or"
        " write into EXEMPT why it is no verdict"
    )


@pytest.mark.parametrize("name", sorted(set(VERDICTS) - set(EXEMPT)))
def test_a_label_is_in_every_answer(name: str) -> None:
    schema = SCHEMAS[name]
    constant = {field for field, one in schema["properties"].items() if "default" in one}

    assert any(labels <= set(schema["required"]) | constant for labels in LABELS), (
        f"{name} may leave its label out: it is neither required nor has it a default"
    )


def test_a_part_is_only_shown_within_a_label() -> None:
    holders = {
        name: {holder for holder, schema in SCHEMAS.items() if name in set(children(schema))}
        for name in EXEMPT
    }
    labelled = {
        name
        for name, schema in SCHEMAS.items()
        if any(labels <= set(schema.get("properties", {})) for labels in LABELS)
    }

    for name, found in holders.items():
        assert found, f"{name} is gone; take it out of EXEMPT"
        assert found <= labelled | set(EXEMPT), (name, found - labelled)


def test_unverified_and_uncalibrated_verdicts_say_so_in_what_is_really_answered(
    client: TestClient, sessions: sessionmaker[Session], admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, verified=False, concept="deception", claims=seed.CLAIMS)
        incident = seed.add_incident(session, seed.add_flag(session, audited))
        seed.add_window(session, audited, ["chat-1"], ["chat-2"])
    paths = [
        path.replace("{incident_id}", str(incident.id)).replace("{request_id}", "chat-1")
        for operation in ANSWERS
        for method, path in [operation.split(" ", 1)]
        if method == "get" and "explanation_id" not in path
    ]
    seen = set()
    for path in paths:
        answer = client.get(path, headers=admin)
        for found in objects(answer.json()):
            if "fidelity" in found:
                seen.add("explanation")
                assert (found["hypothesis"], found["fidelity"]["verified"]) == (True, False)
            if "false_positive_rate" in found and "calibrated" in found:
                seen.add("flag")
                assert (found["hypothesis"], found["calibrated"]) == (True, False)
            if "state" in found and "severity" in found:
                seen.add("incident")
                assert (found["hypothesis"], found["status"]) == (True, "lead")
            if "q_value" in found and "window" in found:
                seen.add("test of a request")
                assert "under reference abababababab" in found["label"]
                assert "over the 2 requests of its window" in found["label"]
                assert (found["hypothesis"], found["window"]["requests"]) == (True, 2)
            if "unlabelled" in found:
                seen.add("precision")
                assert (found["status"], found["precision"]) == ("lead", None)
    assert seen == {"explanation", "flag", "incident", "precision", "test of a request"}


def objects(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for value in document.values():
            yield from objects(value)
    elif isinstance(document, list):
        for value in document:
            yield from objects(value)
