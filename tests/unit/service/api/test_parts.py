"""Answers are made from what was loaded, and take of a row only what they name."""

import datetime as dt
import uuid

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.api.access.disclosure import Disclosure, Withholding
from service.api.deps import authenticate
from service.api.http.openapi import unconnected_app
from service.api.schemas.answer import part
from service.api.schemas.explanation import SampleFields, sample_fields
from service.store.tables import Sample

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
SAMPLE = Sample(
    id=uuid.UUID(int=1),
    tenant_id=uuid.UUID(int=2),
    model_id=uuid.UUID(int=3),
    capture_id=uuid.UUID(int=4),
    request_id="chat-7f3a",
    layer=23,
    position=41,
    token_id=11,
    token_text=" sum",
    phase="decode",
    norm=241.3,
    stratum="uniform",
    trace_id=None,
    span_id=None,
    role=None,
    inclusion_probability=0.25,
    baseline_probability=0.25,
    reason="decode",
    screen_scores={},
    captured_at=NOW,
    stored_at=NOW,
    configuration_id=5,
    subject="0" * 32,
)


def test_an_answer_takes_of_a_sample_what_it_names_and_no_more() -> None:
    shown = Disclosure(captures=frozenset({uuid.UUID(int=4)}), withholding=None)

    fields = sample_fields(SAMPLE, "tiny", shown)

    assert fields.keys() == SampleFields.model_fields.keys()
    assert (fields["token_id"], fields["token_text"]) == (11, " sum")


def test_tokens_that_are_withheld_are_not_among_the_values() -> None:
    fields = sample_fields(SAMPLE, "tiny", Disclosure(withholding=Withholding.MISSING_PURPOSE))

    assert (fields["token_id"], fields["token_text"], fields["text_withheld"]) == (None, None, True)


def test_a_column_that_was_not_loaded_is_an_error_and_not_a_query() -> None:
    with pytest.raises(KeyError, match="norm"):
        part(Sample(layer=23), ["norm"])


def test_no_dependency_takes_a_thread_but_the_one_that_asks_the_store() -> None:
    routes = [route for route in unconnected_app().routes if isinstance(route, APIRoute)]

    threaded = {one.call for route in routes for one in _below(route.dependant) if _takes_thread(one)}

    assert threaded == {authenticate}


def _below(dependant: Dependant) -> list[Dependant]:
    return [found for one in dependant.dependencies for found in (one, *_below(one))]


def _takes_thread(dependant: Dependant) -> bool:
    return dependant.call is not None and not dependant.is_coroutine_callable
