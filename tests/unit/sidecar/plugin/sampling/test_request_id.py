import pytest

from subtext_sidecar.plugin.sampling.request_id import external_id


@pytest.mark.parametrize(
    ("internal", "request_id", "skip"),
    [
        ("chatcmpl-abc-1a2b3c4d", "abc", None),
        ("chatcmpl-my-id-with-dashes-1a2b3c4d", "my-id-with-dashes", None),
        ("0_chatcmpl-abc-1a2b3c4d", "abc", None),
        ("3_chatcmpl-abc-1a2b3c4d", "abc", "unobservable_parallel_sample"),
        ("cmpl-abc-0-1a2b3c4d", "abc", None),
        ("cmpl-abc-2-1a2b3c4d", "abc", "unobservable_batched_prompt"),
        ("1_cmpl-abc-0-1a2b3c4d", "abc", "unobservable_parallel_sample"),
        ("7-1a2b3c4d", "7", None),
        ("2_7-1a2b3c4d", "7", "unobservable_parallel_sample"),
        ("3_mine-1a2b3c4d", "3_mine", None),
        ("chatcmpl-3_mine-1a2b3c4d", "3_mine", None),
        ("chatcmpl-deadbeef-1a2b3c4d", "deadbeef", None),
        ("chatcmpl--1a2b3c4d", "chatcmpl--1a2b3c4d", None),
    ],
)
def test_the_external_id_is_what_the_client_sent(internal: str, request_id: str, skip: str | None) -> None:
    assert external_id(internal) == (request_id, skip)


def test_an_id_that_vllm_did_not_randomize_keeps_its_end() -> None:
    assert external_id("chatcmpl-abc-1a2b3c4d", randomized=False) == ("abc-1a2b3c4d", None)
