"""Chat traffic from one process: fixed work at a fixed concurrency, and what its client saw.

The work is fixed, not the time: every arm of a round answers the same prompts with the same number
of tokens, so that a ratio compares like with like down to the last request.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import msgspec

from bench.traffic import ChatRequest

_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"


class LoadError(RuntimeError):
    """A request was not answered as asked: the run cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one run's traffic goes."""

    base_url: str  # ends in /v1
    model: str
    run_id: str  # unique: prefixes request ids, and keeps prefix caches of different runs apart
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Load:
    """What the client saw in one run."""

    wall_seconds: float = 0.0
    requests: int = 0
    tokens: int = 0
    # One a request, but for each sender's first: those all arrive at once, which no traffic does.
    ttft_seconds: list[float] = field(default_factory=list)
    gap_seconds: list[float] = field(default_factory=list)  # between pieces of text of one answer

    @property
    def tokens_per_second(self) -> float:
        """Output tokens over the whole run."""
        return self.tokens / self.wall_seconds


def run_load(target: Target, turns: Sequence[ChatRequest], concurrency: int) -> Load:
    """Send all turns, ``concurrency`` at a time, and return what came back; raises LoadError."""
    try:
        return asyncio.run(_run(target, turns, concurrency))
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        raise LoadError(f"{target.base_url}: {type(first).__name__}: {first}") from failures


async def _run(target: Target, turns: Sequence[ChatRequest], concurrency: int) -> Load:
    load = Load()
    numbered = iter(enumerate(turns))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as senders:
            for _ in range(concurrency):
                senders.create_task(_send_next(session, target, numbered, load))
        load.wall_seconds = time.perf_counter() - started
    return load


async def _send_next(
    session: aiohttp.ClientSession, target: Target, numbered: Iterator[tuple[int, ChatRequest]], load: Load
) -> None:
    is_first = True
    for number, turn in numbered:
        started = time.perf_counter()
        answer = Answer()
        async with session.post(
            f"{target.base_url}/chat/completions",
            json=_body(target, turn),
            headers={"X-Request-Id": f"{target.run_id}-{number}"},
        ) as response:
            if response.status != HTTPStatus.OK:
                raise LoadError(f"status {response.status}: {(await response.text())[:500]}")
            async for data in response.content.iter_any():
                answer.feed(data, time.perf_counter())
        answer.check(turn)
        load.requests += 1
        load.tokens += turn.answer_tokens
        if not is_first:
            load.ttft_seconds.append(answer.times[0] - started)
        is_first = False
        load.gap_seconds += [
            after - before for before, after in zip(answer.times, answer.times[1:], strict=False)
        ]


def _body(target: Target, turn: ChatRequest) -> dict[str, Any]:
    return {
        "model": target.model,
        "messages": [{"role": "user", "content": turn.text}],
        "max_tokens": turn.answer_tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_salt": target.run_id,
        **target.extra_body,
    }


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)


class Answer:
    """Server-sent events of one answer, with the time at which each piece of text came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._buffer = b""
        self._tokens = 0
        self._is_done = False

    def feed(self, data: bytes, now: float) -> None:
        """Take what the socket had at ``now``."""
        *events, self._buffer = (self._buffer + data).split(b"\n\n")
        for event in events:
            payload = event.removeprefix(_DATA)
            if payload == _DONE:
                self._is_done = True
                continue
            chunk = _chunk_decoder.decode(payload)
            if any(choice.delta.content for choice in chunk.choices):
                self.times.append(now)
            if chunk.usage is not None:
                self._tokens = chunk.usage.completion_tokens

    def check(self, turn: ChatRequest) -> None:
        """Raise LoadError unless the whole answer came."""
        if not self._is_done or not self.times or self._tokens != turn.answer_tokens:
            raise LoadError(
                f"asked for {turn.answer_tokens} tokens, got {self._tokens}, "
                f"{'ended' if self._is_done else 'cut off'}; rest: {self._buffer[:500]!r}"
            )
