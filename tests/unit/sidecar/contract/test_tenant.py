"""Whose traffic it is travels with every message, and a fleet that is half upgraded loses no row by it."""

from typing import Any

import msgspec
import pytest

from service.store import identity
from subtext_sidecar.contract import record
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, is_tenant_name
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import BlockHeader, decode_block
from tests.support.records import block_frames, encode_header, frames, header_for, status, vector_bytes

COUNT = record.CoverageCount(
    v=record.VERSION, source="s", hop=Hop.PLUGIN, model="m", stratum="uniform", minute=5, counts={"a": 1}
)


def without_tenant(message: bytes) -> bytes:
    """Return the message as it was sent before there were tenants."""
    fields = msgspec.msgpack.decode(message)
    assert fields.pop("tenant")
    return msgspec.msgpack.encode(fields)


def as_read_before(message: bytes, struct: type[msgspec.Struct], **changes: Any) -> msgspec.Struct:
    """Return what a reader of before tenants makes of a message: it knows all other fields."""
    fields = [
        (field.encode_name, field.type)
        if field.required
        else (field.encode_name, field.type, msgspec.field(default=field.default))
        for field in msgspec.structs.fields(struct)
        if field.encode_name != "tenant" and field.encode_name not in changes
    ]
    before = msgspec.defstruct("Before", fields, kw_only=True)
    return msgspec.msgpack.decode(message, type=before)


@pytest.mark.parametrize("name", ["default", "a", "0", "acme-eu-1", "x" * 63])
def test_a_tenant_may_have_this_name(name: str) -> None:
    assert is_tenant_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-acme", "Acme", "acme_eu", "a b", "x" * 64, "acme\n", "acmé", "a\x00", "\u06f1", None, 5],
)
def test_a_tenant_may_not_have_this_name(name: object) -> None:
    assert not is_tenant_name(name)


def test_sidecar_and_store_mean_the_same_by_no_tenant() -> None:
    assert DEFAULT_TENANT == identity.DEFAULT_TENANT


def test_records_blocks_counts_and_states_carry_the_tenant() -> None:
    count = msgspec.structs.replace(COUNT, tenant="acme")

    assert record.decode(*frames(tenant="acme")).header.tenant == "acme"
    assert decode_block(*block_frames(tenant="acme")).header.tenant == "acme"
    assert record.decode_coverage(record.encode_coverage(count)) == count
    assert wire.decode_status(wire.encode_status(status(tenant="acme"))).tenant == "acme"


def test_what_writers_of_before_send_is_of_the_default_tenant() -> None:
    header, vector = frames()
    block, vectors = block_frames()

    assert record.decode(without_tenant(header), vector).header == header_for(vector)
    assert decode_block(without_tenant(block), vectors) == decode_block(block, vectors)
    assert record.decode_coverage(without_tenant(record.encode_coverage(COUNT))) == COUNT
    assert wire.decode_status(without_tenant(wire.encode_status(status()))).tenant == DEFAULT_TENANT


def test_readers_of_before_read_all_but_the_tenant() -> None:
    header, _ = frames(tenant="acme", request_id="r")
    block, _ = block_frames(rows=3, tenant="acme")
    count = record.encode_coverage(msgspec.structs.replace(COUNT, tenant="acme"))

    own = as_read_before(header, record.Header, request=None)
    read = as_read_before(block, BlockHeader)
    counted = as_read_before(count, record.CoverageCount)

    assert msgspec.to_builtins(own)["position"] == 12
    assert len(msgspec.to_builtins(read)["rows"]) == 3
    assert msgspec.to_builtins(counted)["counts"] == {"a": 1}
    as_read_before(wire.encode_status(status(tenant="acme")), wire.CaptureStatus)


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a\x00", "x" * 64, 5, None])
def test_a_name_that_no_tenant_has_is_refused_everywhere(name: Any) -> None:
    count = msgspec.structs.replace(COUNT, tenant=name)
    readers = (
        lambda: record.decode(*frames(tenant=name)),
        lambda: decode_block(*block_frames(tenant=name)),
        lambda: record.decode_coverage(record.encode_coverage(count)),
        lambda: wire.decode_status(wire.encode_status(status(tenant=name))),
    )
    for read in readers:
        with pytest.raises(record.RecordError) as caught:
            read()
        assert caught.value.reason == "bad_field"


def test_a_capture_that_another_tenant_repeats_is_another_sample() -> None:
    vector = vector_bytes()
    capture = "a" * 32
    of_default, of_acme, of_bolt = (
        record.sample_id(header_for(vector, capture_id=capture, tenant=tenant))
        for tenant in (DEFAULT_TENANT, "acme", "bolt")
    )
    before = record.decode(
        without_tenant(encode_header(header_for(vector, capture_id=capture))), vector
    ).header

    assert len({of_default, of_acme, of_bolt}) == 3
    assert record.sample_id(before) == of_default


def test_samples_of_the_default_tenant_keep_the_ids_that_they_had_before_tenants() -> None:
    header = header_for(vector_bytes(), capture_id="a" * 32)

    assert str(record.sample_id(header)) == "a1e3c928-6d14-5ebc-a482-5742c1b7a56e"
