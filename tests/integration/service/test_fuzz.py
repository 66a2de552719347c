"""Every operation against its own description: Schemathesis sends what fits and what does not."""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.http import openapi
from service.store import identity, keys
from service.store.tenants.tables import Tenant
from tests.integration.service import seed

Headers = dict[str, str]

# Operations are collected before any database runs, so this application gets its resources late.
fuzzed = openapi.unconnected_app()
# What no schema can say: which strings are cursors, how early a time may be, how two times relate.
UNSAYABLE = {"broken_cursor", "foreign_cursor", "time_out_of_range", "empty_range", "range_too_long"}
# Which reason fits which state, and which concepts an incident has.
UNSAYABLE |= {"transition_not_allowed", "reason_not_allowed", "concepts_not_allowed", "unknown_concept"}
# What goes together in an assignment, and who may triage.
UNSAYABLE |= {"not_allowed", "incident_decided", "unknown_reviewer"}
# What a hold needs at least, and which models there are.
UNSAYABLE |= {"empty_scope", "unknown_model"}
# What time it is.
UNSAYABLE |= {"in_the_future"}
# Which periods a class allows, and of what a model has none.
UNSAYABLE |= {
    "below_class",
    "above_class",
    "below_floor",
    "above_ceiling",
    "in_the_past",
    "of_no_model",
    "below_readings",
}
# Which period is over, what is stored, and what goes together in an export.
UNSAYABLE |= {
    "period_not_over",
    "unknown_model",
    "unknown_checkpoint",
    "no_text_in_kinds",
    "purpose_required",
}
# How many bytes an id has.
UNSAYABLE |= {"no_subject_id"}
# That one of two has to be given, and which models its maker reads.
UNSAYABLE |= {"role_or_scopes", "other_models"}
# Which policy a sidecar refuses.
UNSAYABLE |= {"invalid_policy"}
# What an erasure is of, by its scope, and what it is for.
UNSAYABLE |= {"not_expected", "missing", "not_a_capture", "not_a_trace", "not_a_subject", "missing_purpose"}
# Since when words are searched, and that one of them is to be found.
UNSAYABLE |= {"period_required", "no_words"}
MODEL = "THE-SECRET-MODEL"
SECRET = (MODEL, seed.SECRET_TEXT, seed.SECRET_TOKEN, "rows_sampled")
schema = schemathesis.openapi.from_asgi("/openapi.json", fuzzed)


@pytest.fixture
def stored(app: FastAPI, sessions: sessionmaker[Session]) -> None:
    fuzzed.state.resources = app.state.resources
    with sessions.begin() as session:
        audited = seed.add_model(session, MODEL)
        seed.add_explanation(session, audited, concept="deception")
        seed.add_incident(session, seed.add_flag(session, audited))
        seed.add_coverage(session, hop="plugin", model=MODEL, rows_sampled=1)


@pytest.fixture
def stranger(sessions: sessionmaker[Session], request: pytest.FixtureRequest) -> Headers:
    """A key of a tenant of this name that has nothing."""
    name = request.param
    secret = auth.new_secret()
    with sessions.begin() as session:
        tenant = Tenant(id=identity.tenant_id(name), name=name)
        session.add(tenant)
        session.flush()
        digest = auth.digest(secret)
        keys.add_key(session, name="s", secret_sha256=digest, scopes=["admin"], tenant_id=tenant.id)
    return {"Authorization": f"Bearer {secret}"}


# With no parameter, Schemathesis gives all operations one id in pytest 9.2, and xdist runs one of them.
@pytest.mark.parametrize("stranger", ["acme"], indirect=True)
@pytest.mark.usefixtures("stored")
@schema.parametrize()
@settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_to_its_description_and_tells_nobody_of_another_tenant(
    case: schemathesis.Case[Any], admin: Headers, stranger: Headers
) -> None:
    # A purpose that was made up goes out as it is: with another one a wrong one would seem accepted.
    made_up = {name.lower() for name in case.headers or ()} - {"authorization"}
    answer = case.call(headers={name: said for name, said in admin.items() if name.lower() not in made_up})

    codes = {error["code"] for error in answer.json()["errors"]} if answer.status_code == 422 else set()
    case.validate_response(answer, excluded_checks=[positive_data_acceptance] if codes & UNSAYABLE else [])
    # What is refused for its form was refused before anything was read, whoever asks.
    if case.path.startswith("/v1/") and (answer.status_code != 422 or codes & UNSAYABLE):
        told = case.call(headers=stranger).text
        assert not [word for word in SECRET if word in told]
