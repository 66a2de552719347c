import string
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.request_id import MAX_BYTES, MAX_FORMS, NAMELESS, bounded, forms

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=600)
HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("external", "client"),
    [
        ("chatcmpl-x", "x"),
        ("3_chatcmpl-x", "x"),
        ("cmpl-x-0", "x"),
        ("cmpl-x-12", "x"),
        ("2_cmpl-x-12", "x"),
        ("generate-tokens-x", "x"),
        (f"chatcmpl-x-{HEX}-beam-1", "x"),
        (f"cmpl-x-{HEX[:16]}-beam-1", "x"),
        (f"cmpl-order-5-{HEX[:16]}-beam-0", "order-5"),
        (f"cmpl-order-5-{HEX}-beam-0", "order-5"),
        (f"chatcmpl-order-5-{HEX[:16]}-beam-0", "order-5"),
        ("cmpl-order-5-0", "order-5"),
        ("42", "42"),
        ("3_x", "3_x"),
        ("resp_1f_0", "resp_1f_0"),
        ("a6e1b0c2-8f31-4a7e-9a83-2f4d4f7a2c11", "a6e1b0c2-8f31-4a7e-9a83-2f4d4f7a2c11"),
        ("chatcmpl-", "chatcmpl-"),
        ("cmpl--0", "cmpl--0"),
    ],
)
def test_the_likeliest_form_is_the_clients_id(external: str, client: str) -> None:
    assert forms(external)[0] == client


@pytest.mark.parametrize(
    ("external", "client"),
    [
        ("1_cmpl-x", "1_cmpl-x"),
        ("1_cmpl-x", "x"),
        ("resp_1f_0", "resp_1f"),  # a turn of a response with tools
        ("x_0", "x"),
        ("chatcmpl-x_3", "x"),  # a conversation of a batch of chats
        ("chatcmpl-x_3", "x_3"),
        ("5_3_x", "3_x"),
        (f"chatcmpl-x-{HEX}-beam-1", f"x-{HEX}-beam-1"),
        (f"cmpl-x-0-{HEX}-beam-1", "x"),
        (f"cmpl-x-0-{HEX[:16]}-beam-1", f"x-0-{HEX[:16]}-beam-1"),
    ],
)
def test_an_id_that_looks_like_an_addition_of_vllm_is_found_either_way(external: str, client: str) -> None:
    assert client in forms(external)


@pytest.mark.parametrize("client", ["9" * 5000, "x-1" * 2000, "\x00" * 4097, "é" * 10_000 + "_cmpl-x"])
def test_an_id_of_thousands_of_characters_is_found_whatever_vllm_added(client: str) -> None:
    for additions in ("{}", "chatcmpl-{}", "cmpl-{}-0", "7_cmpl-{}-3", f"cmpl-{{}}-0-{HEX}-beam-1", "{}_0"):
        assert bounded(client) in forms(additions.replace("{}", client))
    assert forms(f"7_cmpl-{client}-3")[0] == bounded(client)


ADDITIONS = ["{}", "chatcmpl-{}", "chatcmpl-{}_1", "cmpl-{}-0", "7_cmpl-{}-3", "generate-tokens-{}", "{}_0"]


@given(client=ANYTHING, additions=st.sampled_from(ADDITIONS))
def test_a_request_is_found_by_what_its_client_sent(client: str, additions: str) -> None:
    external = additions.replace("{}", client)

    assert not client or bounded(client) in forms(external)


@given(text=ANYTHING)
def test_a_bounded_id_is_readable_bounded_and_the_same_again(text: str) -> None:
    once = bounded(text)

    assert once
    assert len(once.encode()) <= MAX_BYTES
    assert not any(character < " " or character == "\x7f" for character in once)
    assert bounded(once) == once
    assert len(forms(text)) <= MAX_FORMS


def test_what_is_short_and_readable_is_kept_as_it_is() -> None:
    for text in ("x", "Ünïcode-日本", "a b", string.punctuation, "x" * MAX_BYTES):
        assert bounded(text) == text
    assert bounded("") == NAMELESS


def test_ids_that_differ_in_what_is_cut_or_cleaned_stay_apart() -> None:
    ids = [
        "x" * 257,
        "x" * 258,
        "x" * 256 + "y",
        "x\x00y",
        "x\x01y",
        "xy",
        "x\ud800y",
        "é" * 200,
        "é" * 201,
    ]

    assert len({bounded(text) for text in ids}) == len(ids)


def test_an_id_of_a_megabyte_costs_no_more_than_one_of_a_few_kilobytes() -> None:
    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(20):
            started = perf_counter()
            forms(text)
            best = min(best, perf_counter() - started)
        return best

    assert seconds("9" * 5000 + "_cmpl-x") < 0.01
    # Nothing of it can be read, and there are eight ways to.
    unreadable = "3_chatcmpl-" + "\ud800" * 5000 + "-" + "a" * 32 + "-beam-1"
    assert seconds(unreadable) < 60 * seconds("chatcmpl-" + "9" * 200)
    assert seconds("cmpl-" + "9" * 2**20) < 20 * seconds("cmpl-" + "9" * 8192)
