import json

import pytest

from subtext_sidecar.local.policy import (
    CapturePolicy,
    PolicyError,
    PolicyUpdate,
    ScreenPolicy,
    decode_update,
    encode_update,
    parse_capture,
    parse_document,
)


def test_a_section_that_is_left_out_has_its_default() -> None:
    policies = parse_document(b"{}", "here")

    assert policies.capture is None
    assert policies.screen == ScreenPolicy()


def test_a_field_that_is_left_out_has_its_default() -> None:
    policies = parse_document(
        b'{"capture": {"request_rate": 0.5}, "screen": {"baseline_rate": 0.1}}', "here"
    )

    assert policies.capture == CapturePolicy(request_rate=0.5)
    assert policies.screen == ScreenPolicy(baseline_rate=0.1)


def test_the_version_names_the_content_not_its_spelling() -> None:
    first = parse_document(b'{"capture": {"request_rate": 0.5, "seed": 1}}', "here")
    spelled_otherwise = parse_document(b'{ "capture": {"seed": 1, "request_rate": 0.50} }', "here")
    another = parse_document(b'{"capture": {"request_rate": 0.5, "seed": 2}}', "here")

    assert first.version == spelled_otherwise.version
    assert first.version != another.version


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"capture": {"request_rate": 1.5}}, "capture.request_rate"),
        ({"capture": {"request_rat": 0.5}}, "request_rat"),
        ({"capture": {"window": 9}}, "capture.window is 9: it must be at most decode_stride"),
        (
            {"capture": {"prompt_window": 63}},
            "max_rows_per_request is 64: it must be at least ",
        ),
        ({"capture": {"rows_per_second": -1}}, "rows_per_second"),
        ({"capture": {"honour_opt_in": True}}, "capture.honour_opt_in is true without a budget"),
        ({"capture": {"honour_opt_in": "yes"}}, "honour_opt_in"),
        ({"screen": {"baseline_rate": 0}}, "screen.baseline_rate"),
        ({"screen": {"anomaly_p_value": 2}}, "screen.anomaly_p_value"),
        ({"screens": {}}, "screens"),
        ([], "object"),
    ],
)
def test_a_bad_document_is_refused_by_name(document: object, named: str) -> None:
    with pytest.raises(PolicyError, match=named) as caught:
        parse_document(json.dumps(document).encode(), "policy file p.json")

    assert str(caught.value).startswith("policy file p.json")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"capture": {"request_rate": NaN}}']
)
def test_what_is_not_json_is_refused(content: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_document(content, "here")


@pytest.mark.parametrize("name", ["request_rate", "rows_per_second"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(PolicyError, match=name):
        parse_capture({name: value}, "additional_config.subtext")


@pytest.mark.parametrize("capture", [None, CapturePolicy(request_rate=0.25, honour_trace=True)])
def test_an_update_arrives_as_it_was_sent(capture: CapturePolicy | None) -> None:
    update = PolicyUpdate(version="abc", capture=capture)

    assert decode_update(encode_update(update)) == update


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        encode_update(PolicyUpdate(version="a", capture=None, v=2)),
        encode_update(PolicyUpdate(version="a", capture=CapturePolicy(window=9))),
        encode_update(PolicyUpdate(version="a", capture=CapturePolicy(request_rate=2.0))),
        encode_update(PolicyUpdate(version="a", capture=CapturePolicy(rows_per_second=float("inf")))),
    ],
)
def test_an_update_that_cannot_be_used_is_refused(payload: bytes) -> None:
    with pytest.raises(PolicyError):
        decode_update(payload)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"capture": {"request_rate": 2}}, "capture.request_rate"),
        ({"capture": {"request_rat": 1}}, "capture.request_rat"),
        ({"screens": {}}, "screens"),
        ({"capture": {"window": 9}}, "capture.window"),
        ({"capture": {"prompt_window": 63}}, "capture.max_rows_per_request"),
        ({"capture": {"honour_opt_in": True}}, "capture.honour_opt_in"),
        ([], ""),
    ],
)
def test_what_cannot_be_used_names_its_field(document: object, field: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_document(json.dumps(document).encode(), "here")

    assert refused.value.field == field
