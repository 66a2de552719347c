"""The load generator against a real HTTP server that streams as vLLM does."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from bench.load import LoadError, Target, run_load
from bench.traffic import ChatRequest, plan_requests

POOL = [ChatRequest(text=text, answer_tokens=tokens) for text, tokens in [("a", 16), ("b", 40), ("c", 64)]]


class ChatServer:
    """Streams one piece a token; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.request_ids: set[str] = set()
        self.most_at_once = 0
        self._at_once = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.request_ids.add(request.headers["X-Request-Id"])
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(body["max_tokens"]):
            await self._event(response, {"choices": [{"delta": {"content": "word "}}]})
            await asyncio.sleep(0)
        await self._event(
            response,
            {"choices": [], "usage": {"completion_tokens": body["max_tokens"], "prompt_tokens": 1}},
        )
        await response.write(b"data: [DONE]\n\n")
        self._at_once -= 1
        return response

    async def _event(self, response: web.StreamResponse, document: object) -> None:
        await response.write(b"data: " + json.dumps(document).encode() + b"\n\n")


@pytest.fixture
def chat_server() -> Iterator[tuple[ChatServer, str]]:
    server, loop = ChatServer(), asyncio.new_event_loop()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(application)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    host, port = runner.addresses[0][:2]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server, f"http://{host}:{port}/v1"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_all_work_is_sent_at_the_asked_concurrency_and_measured(
    chat_server: tuple[ChatServer, str],
) -> None:
    server, url = chat_server
    turns = plan_requests(POOL, count=20, seed="0")

    load = run_load(Target(base_url=url, model="m", run_id="run"), turns, concurrency=4)

    assert load.requests == 20
    assert load.tokens == sum(turn.answer_tokens for turn in turns)
    assert server.most_at_once == 4
    assert server.request_ids == {f"run-{number}" for number in range(20)}
    assert {body["cache_salt"] for body in server.asked} == {"run"}
    assert len(load.ttft_seconds) == 20 - 4
    assert load.wall_seconds > 0
    assert min(load.gap_seconds) >= 0


def test_a_refusal_ends_the_run_with_its_text(chat_server: tuple[ChatServer, str]) -> None:
    _, url = chat_server
    target = Target(base_url=f"{url}/nowhere", model="m", run_id="run")

    with pytest.raises(LoadError, match="status 404"):
        run_load(target, POOL[:1], concurrency=1)


def test_a_server_that_is_gone_ends_the_run() -> None:
    target = Target(base_url="http://127.0.0.1:1/v1", model="m", run_id="run")

    with pytest.raises(LoadError, match="Cannot connect"):
        run_load(target, POOL[:1], concurrency=1)
