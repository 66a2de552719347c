"""Ids of tenants and their models."""

import uuid

from service.store.identity import (
    DEFAULT_TENANT,
    capture_key,
    capture_name,
    decoder_id,
    model_id,
    tenant_id,
)


def test_two_tenants_models_of_one_name_are_two_models() -> None:
    assert len({model_id("m"), model_id("m", "acme"), model_id("m", "bolt")}) == 3


def test_the_default_tenants_models_keep_the_ids_of_before_tenants() -> None:
    assert model_id("m", DEFAULT_TENANT) == model_id("m")
    assert model_id("SmolLM2-135M-Instruct") == uuid.uuid5(
        uuid.UUID("2b1f3d52-6a0e-5c1e-8a55-0f7f1f2ad9c4"), '["model", "SmolLM2-135M-Instruct"]'
    )


def test_tenant_and_name_cannot_run_into_each_other() -> None:
    assert model_id("ab", "c") != model_id("a", "bc")
    assert tenant_id("a") != model_id("a")


def test_a_decoder_of_before_tenants_keeps_its_id_and_two_tenants_never_share_one() -> None:
    assert decoder_id("d") == decoder_id("d", "default")
    assert len({decoder_id("d", tenant) for tenant in ("default", "acme", "other")}) == 3


def test_a_capture_that_another_tenant_repeats_has_a_key_of_its_own() -> None:
    capture = uuid.UUID(int=7)
    keys = {
        capture_key(capture, model_id("m", tenant), "r", tenant_id(tenant))
        for tenant in (DEFAULT_TENANT, "acme", "bolt")
    }

    assert len(keys) == 3
    assert capture in keys  # as before tenants


def test_the_access_log_names_a_capture_as_it_is_shown_whosever_it_is() -> None:
    capture, model = uuid.UUID(int=7), model_id("m", "acme")

    assert capture_name(capture, model, "r") == capture
    # Of before captures had an id, none is shown.
    assert capture_name(None, model, "r") == capture_key(None, model, "r", tenant_id("acme"))
