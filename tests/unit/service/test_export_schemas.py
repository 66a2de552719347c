"""The schemas of a bundle's rows fit every payload that the log commits to."""

from typing import Any

import jsonschema_rs
import pytest

from service.evidence import payloads
from service.evidence.payloads import Kind
from service.exports.schemas import schema_of

ZERO = "00000000-0000-0000-0000-000000000000"
TIME = "2026-11-23T05:00:00Z"


def a_value(schema: dict[str, Any]) -> Any:
    """Return something that fits a column's schema."""
    if "anyOf" in schema:
        return None
    if schema.get("format") == "uuid":
        return ZERO
    if schema.get("format") == "date-time":
        return TIME
    kind = schema.get("type", "object")
    return 1 if isinstance(kind, list) else {"string": "", "boolean": True, "array": []}.get(kind, {})


def a_line(schema: dict[str, Any], columns: payloads.Columns, more: dict[str, Any]) -> dict[str, Any]:
    of_row = schema["properties"]["payload"]["properties"]
    row = {name: a_value(of_row[name]) for name in columns.committed}
    payload = row | more | {"v": payloads.VERSION, "table": columns.table}
    return {"entry": 1, "salt": "00", "payload": payload}


@pytest.mark.parametrize("kind", [Kind.ACCESS, Kind.INCIDENT_EVENT])
def test_what_a_person_did_is_of_its_schema(kind: Kind) -> None:
    schema = schema_of(kind, with_text=True)
    who = {"session_id": ZERO, "issuer": "https://login.example", "person": "anna"}

    for more in ({}, who):
        jsonschema_rs.validator_for(schema).validate(a_line(schema, payloads.COLUMNS[kind], more))
    assert not jsonschema_rs.is_valid(schema, a_line(schema, payloads.COLUMNS[kind], {"other": 1}))


@pytest.mark.parametrize("with_text", [True, False])
def test_an_explanation_of_a_subject_is_of_its_schema(with_text: bool) -> None:  # noqa: FBT001  # pytest's
    schema = schema_of(Kind.EXPLANATION, with_text=with_text)
    payload = schema["properties"]["payload"]["properties"]
    of_sample = payload["sample"]["properties"]
    line = {name: a_value(payload[name]) for name in schema["properties"]["payload"]["required"]}
    sample = {name: a_value(of_sample[name]) for name in payload["sample"]["required"]}
    own = {"table": "explanations", "matches": [], "sample": sample}

    for version, subject in ((payloads.VERSION, {}), (payloads.SUBJECT_VERSION, {"subject": "a" * 32})):
        row = line | own | {"v": version, "sample": sample | subject}
        jsonschema_rs.validator_for(schema).validate({"entry": 1, "salt": None, "payload": row})
