import pytest

from subtext_sidecar.plugin.sampling.request_id import client_ids, new_capture_id


@pytest.mark.parametrize(
    ("internal", "request_id"),
    [
        ("chatcmpl-abc-1a2b3c4d", "abc"),
        ("chatcmpl-my-id-with-dashes-1a2b3c4d", "my-id-with-dashes"),
        ("0_chatcmpl-abc-1a2b3c4d", "abc"),
        ("3_chatcmpl-abc-1a2b3c4d", "abc"),
        ("cmpl-abc-2-1a2b3c4d", "abc"),
        ("1_cmpl-abc-0-1a2b3c4d", "abc"),
        ("7-1a2b3c4d", "7"),
        ("3_mine-1a2b3c4d", "3_mine"),
        ("chatcmpl-3_mine-1a2b3c4d", "3_mine"),
        ("chatcmpl-deadbeef-1a2b3c4d", "deadbeef"),
        ("x-1A2B3C4D", "x-1A2B3C4D"),  # not vLLM's
        ("generate-tokens-abc-1a2b3c4d", "abc"),
    ],
)
def test_the_clients_id_is_what_it_sent(internal: str, request_id: str) -> None:
    assert client_ids(internal)[0] == request_id


def test_an_id_that_vllm_did_not_randomize_keeps_its_end() -> None:
    assert client_ids("chatcmpl-abc-1a2b3c4d", randomized=False)[0] == "abc-1a2b3c4d"


@pytest.mark.parametrize(
    "internal", ["9" * 5000 + "_cmpl-x-0-1a2b3c4d", "a\x00b-1a2b3c4d", "", "-1a2b3c4d"]
)
def test_an_id_that_nobody_can_read_is_bounded_and_readable(internal: str) -> None:
    request_id = client_ids(internal)[0]

    assert 0 < len(request_id.encode()) <= 256
    assert request_id.isprintable()


def test_no_two_captures_have_the_same_identity() -> None:
    assert len({new_capture_id("chatcmpl-a-1a2b3c4d") for _ in range(1000)}) == 1000
