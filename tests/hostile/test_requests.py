"""What clients send to a real server: all are served, and nobody loses a row by what another one sends.

One server for all tests: each test sends what is hostile at the same time as innocent requests.
"""

import base64
import io
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.store.read import canaries
from subtext_sidecar.contract.canary import canary_key
from subtext_sidecar.contract.request_id import bounded
from tests.support.services import cloned_database, running_valkey
from tests.support.vllm.audited import (
    BOMB,
    MODEL,
    MOST_ROWS,
    PROMPT_ROWS,
    Audited,
    Request,
    audited,
    completion,
    innocent,
    make_model,
)
from tests.support.vllm.canaries import marked, new_nonce, run_one, token_of
from workers.canary.endpoint import OpenAiEndpoint
from workers.canary.runner import Result
from workers.canary.tokenizer import ChatTokenizer

pytestmark = pytest.mark.vllm

TOKENS = 5
ROWS = PROMPT_ROWS + TOKENS - 1  # the last token of an answer is never computed
NINES = "9" * 5000 + "_cmpl-x"
MIB = 1 << 20
# Of a trace that its own sampler left out, and whose random bits no rate below 1 takes.
NEVER_DRAWN = "00-0af7651916cd43dd8400000000000000-b7ad6b7169203331-00"


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory, model_dir: Path, postgres_server: str, template_database: str
) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("h")
    model = make_model(tmp_path_factory.mktemp("model"), model_dir)
    with (
        cloned_database(postgres_server, template_database) as database_url,
        running_valkey(tmp_path_factory.mktemp("valkey")) as redis_url,
        audited(folder, model, database_url, redis_url) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def capture_stays_on(parts: Audited) -> Iterator[None]:
    assert parts.is_capturing()
    yield
    assert parts.is_capturing()


def new_id(name: str = "innocent") -> str:
    return f"{name} {secrets.token_hex(8)}"


def serve(parts: Audited, hostile: Sequence[Request], others: int = 8) -> list[dict[str, Any]]:
    """Send the hostile requests among innocent ones; return the answers to the hostile ones.

    All are answered, and every row of the innocent ones is stored and read.
    """
    ids = [new_id() for _ in range(others)]
    answers = parts.send([*hostile, *(innocent(one, TOKENS) for one in ids)])
    assert [one.status_code for one in answers] == [200] * len(answers), [one.text[:500] for one in answers]
    for one in ids:
        parts.wait_for_rows(one, [ROWS])
    return [one.json() for one in answers[: len(hostile)]]


def response(request_id: str) -> Request:
    body = {"model": MODEL, "input": "Hello", "max_output_tokens": TOKENS, "request_id": request_id}
    return Request("/v1/responses", body, {})


def generate(request_id: str) -> Request:
    params = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.0}
    body = {"model": MODEL, "token_ids": [5, 6, 7], "sampling_params": params, "request_id": request_id}
    return Request("/inference/v1/generate", body, {})


def chat_batch(request_id: str, count: int) -> Request:
    conversations = [[{"role": "user", "content": f"Hello {number}"}] for number in range(count)]
    body = {
        "model": MODEL,
        "messages": conversations,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "request_id": request_id,
    }
    return Request("/v1/chat/completions/batch", body, {"X-Request-Id": request_id})


def by_body(request_id: str) -> Request:
    return completion({"prompt": [5, 6, 7], "max_tokens": TOKENS, "request_id": request_id})


def is_found(parts: Audited, request_id: str, captures: int) -> bool:
    return len(parts.rows_of(request_id)) >= captures


@pytest.mark.parametrize(
    "odd",
    [NINES, "nul\x00id", "42", "1_cmpl-x", "resp_a_0", "\x1b[31m", "-", "a~b", "\u202eright to left"],
    ids=["nines", "nul", "number", "sample", "response", "escape", "dash", "mark", "direction"],
)
def test_an_odd_id_is_read_and_found_and_costs_nobody_a_row(parts: Audited, odd: str) -> None:
    serve(parts, [response(odd), by_body(odd)])

    # A response may end before its last token.
    for request_id in (odd, bounded(odd)):
        parts.wait_for("both captures", partial(is_found, parts, request_id, 2))


def test_ids_of_a_megabyte_are_cut_and_found_by_what_is_left(parts: Audited) -> None:
    odd = [f"{secrets.token_hex(8)}{'x' * MIB}" for _ in range(17)]
    dropped = parts.metric("subtext_activations_dropped_total")

    serve(parts, [by_body(one) for one in odd], others=31)

    for one in odd:
        (capture,) = parts.wait_for_rows(bounded(one), [ROWS])
        assert len(capture["request_id"].encode()) <= 256
    assert parts.metric("subtext_activations_dropped_total") == dropped


def test_many_long_ids_in_one_step_refuse_no_block(parts: Audited) -> None:
    odd = [f"{secrets.token_hex(8)}{'y' * 62 * 1024}" for _ in range(17)]

    serve(parts, [by_body(one) for one in odd], others=31)

    for one in odd:
        parts.wait_for_rows(bounded(one), [ROWS])
    assert parts.metric("subtext_stream_dead_letters_total") == 0


def test_two_requests_of_one_id_are_both_read_and_share_no_flag(parts: Audited) -> None:
    again, control = new_id("again"), new_id("control")
    benign = innocent(again, TOKENS)

    serve(parts, [benign])
    serve(parts, [innocent(again, TOKENS, (5, 6, BOMB))])
    serve(parts, [innocent(again, TOKENS, (5, 7, BOMB)), innocent(control, TOKENS, (5, BOMB, BOMB))])

    captures = parts.wait_for_rows(again, [ROWS] * 3)
    assert len({one["capture_id"] for one in captures}) == 3
    assert len({row["id"] for one in captures for row in one["samples"]}) == 3 * ROWS
    parts.wait_for_rows(control, [ROWS])
    assert [flag["concept"] for flag in parts.flags_of(control)] == ["bombs"]
    assert parts.flags_of(again) == []


def test_every_endpoint_is_read_and_found_by_the_clients_id(parts: Audited) -> None:
    of_batch, of_tokens, of_response = new_id("batch"), new_id("tokens"), new_id("response")

    serve(parts, [chat_batch(of_batch, 3), generate(of_tokens), response(of_response)])

    parts.wait_for_rows(of_batch, [ROWS] * 3)
    parts.wait_for_rows(of_tokens, [ROWS])
    parts.wait_for("the response", lambda: parts.rows_of(of_response))


def test_each_completion_prompt_and_beam_is_a_capture_of_its_own(parts: Audited) -> None:
    several, prompts, beams = new_id("several"), new_id("prompts"), new_id("beams")
    seen = parts.settled_metric("subtext_requests_seen_total")

    serve(
        parts,
        [
            completion(
                {"prompt": [5, 6, 7], "max_tokens": TOKENS, "n": 3, "temperature": 1.0},
                {"X-Request-Id": several},
            ),
            completion(
                {"prompt": [[5, 6, 7], [8, 9, 10]], "max_tokens": TOKENS}, {"X-Request-Id": prompts}
            ),
            completion(
                {"prompt": [5, 6, 7], "max_tokens": 2, "n": 2, "use_beam_search": True},
                {"X-Request-Id": beams},
            ),
        ],
        others=2,
    )

    parts.wait_for_rows(several, [ROWS] * 3)
    parts.wait_for_rows(prompts, [ROWS] * 2)
    # One request for the first token, and one for each beam for the second; no row of what they answer.
    parts.wait_for_rows(beams, [PROMPT_ROWS] * 3)
    # Each is one of the seen and one of the sampled, so that the share of both is right.
    counted = 2 + 3 + 2 + 3
    parts.wait_for(
        "every engine request is counted",
        lambda: parts.metric("subtext_requests_seen_total") == seen + counted,
    )
    assert parts.metric("subtext_requests_sampled_total") == parts.metric("subtext_requests_seen_total")


def test_a_canary_goes_the_whole_way_and_is_no_traffic(parts: Audited) -> None:
    canary_id, control = new_id("canary"), new_id("control")

    assert run_one(parts, canary_id, deadline_seconds=90.0) == Result("flagged")

    # Of a request that came later everything is stored, and still nothing of the canary.
    serve(parts, [innocent(control, TOKENS, (5, BOMB, BOMB))], others=1)
    parts.wait_for_rows(control, [ROWS])
    assert [flag["concept"] for flag in parts.flags_of(control)] == ["bombs"]
    assert parts.captures_of(canary_id) == []
    parts.wait_for(
        "the canary is counted by itself",
        lambda: parts.metric("subtext_requests_sampled_total", stratum="canary") >= 1,
    )


def test_a_chat_of_the_runner_is_read_as_a_canary(parts: Audited, model_dir: Path) -> None:
    nonce, prompt = new_nonce(), ChatTokenizer(model_dir)("Hello")
    endpoint = OpenAiEndpoint(f"{parts.openai_url}/v1", MODEL, answer_tokens=TOKENS, api_key=None)

    endpoint.ask(prompt, token_of(nonce, prompt=prompt), nonce)

    def readings() -> int:
        with parts.sessions() as session:
            return canaries.find(session, nonce).readings

    parts.wait_for("a row of the canary is read", readings)


def test_a_forged_and_a_stolen_token_hide_nothing(parts: Audited) -> None:
    forged, stolen, altered = new_id("forged"), new_id("stolen"), new_id("altered")
    used = token_of(new_nonce())
    unheeded = {
        reason: parts.metric("subtext_requests_unheeded_total", reason=reason)
        for reason in ("canary", "canary_replayed", "canary_altered")
    }

    serve(parts, [marked(new_id("canary"), used, TOKENS)], others=0)
    wrong = token_of(new_nonce(), canary_key(b"a guess at the secret, which is wrong"))
    serve(parts, [marked(forged, wrong, TOKENS), marked(stolen, used, TOKENS)], others=1)
    anothers = token_of(new_nonce(), prompt=[5, BOMB])
    serve(parts, [marked(altered, anothers, TOKENS)], others=1)

    for request_id in (forged, stolen, altered):
        parts.wait_for_rows(request_id, [ROWS])
        assert [flag["concept"] for flag in parts.flags_of(request_id)] == ["bombs"]
    for reason, before in unheeded.items():
        parts.wait_for(
            f"{reason} is counted",
            lambda reason=reason, before=before: (  # type: ignore[misc]
                parts.metric("subtext_requests_unheeded_total", reason=reason) > before
            ),
        )


def test_no_token_stands_where_a_client_sent_embeddings(parts: Audited) -> None:
    import torch

    request_id = new_id("embedded")
    buffer = io.BytesIO()
    torch.save(torch.zeros((4, 64)), buffer)
    embedded = base64.b64encode(buffer.getvalue()).decode()
    dropped = parts.metric("subtext_activations_dropped_total", reason="embedded")

    serve(
        parts,
        [completion({"prompt_embeds": embedded, "max_tokens": TOKENS}, {"X-Request-Id": request_id})],
    )

    (capture,) = parts.wait_for_rows(request_id, [TOKENS - 1])
    assert {row["phase"] for row in capture["samples"]} == {"decode"}
    parts.wait_for(
        "the rows of the prompt are counted",
        lambda: (
            parts.metric("subtext_activations_dropped_total", reason="embedded") == dropped + PROMPT_ROWS
        ),
    )


def test_an_answer_is_sampled_to_its_end_however_long_it_is(parts: Audited) -> None:
    request_id, tokens = new_id("long"), 900

    serve(parts, [innocent(request_id, tokens)])

    parts.wait_for("the last windows", lambda: max(positions(parts, request_id), default=0) > tokens // 2)
    found = positions(parts, request_id)
    assert len(found) <= MOST_ROWS
    assert max(found) > 248 + 3
    (capture,) = parts.captures_of(request_id)
    rows = [row for row in capture["samples"] if row["phase"] == "decode"]
    # Unbiased by construction: the rows stand for as many positions as the answer may have.
    assert 0 < min(row["inclusion_probability"] for row in rows) < 1.0
    assert max(row["inclusion_probability"] for row in rows) == 1.0


def positions(parts: Audited, request_id: str) -> list[int]:
    return [row["position"] for one in parts.captures_of(request_id) for row in one["samples"]]


def test_what_a_client_says_of_sampling_decides_nothing_and_is_counted(parts: Audited) -> None:
    said: dict[str, dict[str, Any]] = {
        "opt_in": {"vllm_xargs": {"subtext": "on"}},
        "opt_out": {"vllm_xargs": {"subtext": "off"}},
        "wish": {"vllm_xargs": {"subtext": "maybe"}},
        "trace": {"vllm_xargs": {"traceparent": NEVER_DRAWN}},
        "kv_transfer": {"kv_transfer_params": {"do_remote_decode": True, "transfer_id": "x"}},
    }
    ids = {reason: new_id(reason) for reason in said}

    def unheeded() -> dict[str, float]:
        return {reason: parts.metric("subtext_requests_unheeded_total", reason=reason) for reason in said}

    before = unheeded()

    serve(
        parts,
        [
            completion({"prompt": [5, 6, 7], "max_tokens": TOKENS, **body}, {"X-Request-Id": ids[reason]})
            for reason, body in said.items()
        ],
    )

    for request_id in ids.values():
        parts.wait_for_rows(request_id, [ROWS])
    # A well-formed trace is nothing that an operator has to hear of.
    counted = {reason: count + (reason != "trace") for reason, count in before.items()}
    parts.wait_for(f"the counts {counted}", lambda: unheeded() == counted)
