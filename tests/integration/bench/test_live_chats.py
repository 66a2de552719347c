"""Asking a server and reading the stream meanwhile: real HTTP, real Valkey, capture played by the test."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from redis import Redis

from bench.live_chats_join import LiveChat
from bench.live_chats_prompts import Ask
from bench.live_chats_server import Sampling, ServerError, capture
from subtext_sidecar.contract.streams import FIELD_HEADER, FIELD_VECTOR, activations_stream
from tests.support.live import LAYER, MODEL, make
from tests.support.records import encode_header

STREAM = activations_stream(MODEL, LAYER)

SAMPLING = Sampling(concurrency=3, max_tokens=2, temperature=0.5)
ASKS = [Ask(f"number {number}", [number, 7], is_real=number == 2) for number in range(6)]


class Audited(ThreadingHTTPServer):
    """Answers as vLLM does, and puts the row of its first token on the stream a moment later."""

    daemon_threads = True

    def __init__(self, redis_url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.redis_url = redis_url
        self.asked: list[dict[str, Any]] = []
        self.changes: dict[str, Any] = {}

    def put(self, request_id: str) -> None:
        row = make(request_id, 2, 8)
        with Redis.from_url(self.redis_url) as redis:
            redis.xadd(STREAM, {FIELD_HEADER: encode_header(row.header), FIELD_VECTOR: row.vector})


class Handler(BaseHTTPRequestHandler):
    server: Audited

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        number = int(body["messages"][0]["content"].split()[-1])
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "x"},
            "token_ids": [8, 9],
        }
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "x", "choices": [choice]}
        answer |= {"prompt_token_ids": [number, 7], **self.server.changes}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        threading.Timer(0.5, self.server.put, [self.headers["X-Request-Id"]]).start()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def audited(redis_url: str) -> Iterator[Audited]:
    server = Audited(redis_url)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server: Audited) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def test_every_chat_and_every_row_that_came_meanwhile_is_returned(audited: Audited, redis_url: str) -> None:
    audited.put("before")
    with Redis.from_url(redis_url) as redis:
        captured = capture(url_of(audited), redis_url, ASKS, SAMPLING)
        redis.xadd(STREAM, {b"x": b"y"})

    assert list(captured.chats.values()) == [LiveChat([*ask.tokens, 8, 9], 2, ask.is_real) for ask in ASKS]
    assert {record.header.request.request_id for record in captured.records} == set(captured.chats)
    assert captured.unreadable == 0
    assert all(body["return_token_ids"] and body["max_tokens"] == 2 for body in audited.asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_token_ids": None}, "no token ids"),
        ({"prompt_token_ids": [1, 2, 3]}, "another template"),
    ],
)
def test_a_server_that_read_something_else_is_refused(
    audited: Audited, redis_url: str, changes: dict[str, Any], message: str
) -> None:
    audited.changes = changes

    with pytest.raises(ServerError, match=message):
        capture(url_of(audited), redis_url, ASKS, SAMPLING)


def test_a_failed_request_is_told(redis_url: str) -> None:
    with pytest.raises(ServerError, match="APIConnectionError"):
        capture("http://127.0.0.1:9/v1", redis_url, ASKS, SAMPLING)
