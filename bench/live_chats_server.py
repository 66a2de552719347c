"""Send prompts to the audited server and collect the rows that it captures."""

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import openai
from redis import Redis

from bench.live_chats_join import LiveChat
from bench.live_chats_prompts import Ask
from deploy.local import launch
from deploy.local.model import MODEL_NAME
from deploy.local.ports import HOST
from deploy.local.stack import Stack
from subtext_sidecar.contract.record import Record, RecordError, decode
from subtext_sidecar.contract.streams import ACTIVATIONS_PATTERN, FIELD_HEADER, FIELD_VECTOR

_STORE_DEADLINE_SECONDS: Final = 60.0
_ENGINE_DEADLINE_SECONDS: Final = 900.0
_REQUEST_SECONDS: Final = 300.0
_QUIET_SECONDS: Final = 3.0
"""Silence after which the stream counts as complete; plugin and sidecar delay rows by less than 1 s."""
_WAIT_MILLISECONDS: Final = 200


class ServerError(RuntimeError):
    """The server failed or answered unexpectedly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Parameters of the requests."""

    concurrency: int
    max_tokens: int
    temperature: float


class Recording(NamedTuple):
    """The server's answers and the captured records."""

    chats: dict[str, LiveChat]
    """By request id, in sending order."""
    records: list[Record]
    unreadable: int
    """Number of stream entries that are not valid records."""


def start(stack: Stack, plan: launch.LaunchPlan) -> None:
    """Start the demo's Valkey, sidecar and audited server, and wait until all are ready."""
    ports = plan.ports
    for spec in (launch.valkey(plan.home, ports.valkey), launch.sidecar(plan), launch.vllm(plan)):
        stack.start(spec)
    stack.wait_ready(
        {"sidecar and Valkey": f"http://{HOST}:{ports.sidecar}/readyz"}, _STORE_DEADLINE_SECONDS
    )
    stack.wait_ready(
        {"audited vLLM server": f"http://{HOST}:{ports.openai}/health"}, _ENGINE_DEADLINE_SECONDS
    )


def capture(base_url: str, redis_url: str, asks: Sequence[Ask], sampling: Sampling) -> Recording:
    """Send every prompt once, and return the chats with all records that arrive on the stream.

    `base_url` ends in /v1. Raises ServerError when a request fails, or when the server's prompt tokens
    differ from the expected ones.
    """
    run_id = uuid.uuid4().hex[:8]
    names = [f"live-{run_id}-{number}" for number in range(len(asks))]
    # A retry would capture two texts under one request id.
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=_REQUEST_SECONDS)
    with client, Redis.from_url(redis_url) as redis, ThreadPoolExecutor(sampling.concurrency) as pool:
        last = _newest(redis)
        sent = [
            pool.submit(_chat, client, name, ask, sampling, seed=number)
            for number, (name, ask) in enumerate(zip(names, asks, strict=True))
        ]
        try:
            records, unreadable = _follow(redis, last, sent)
            chats = [one.result() for one in sent]
        except openai.OpenAIError as error:
            raise ServerError(f"a request failed: {type(error).__name__}: {error}") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return Recording(dict(zip(names, chats, strict=True)), records, unreadable)


def _chat(client: openai.OpenAI, name: str, ask: Ask, sampling: Sampling, *, seed: int) -> LiveChat:
    answer = client.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": ask.text}],
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=seed,
        extra_headers={"X-Request-Id": name},
        extra_body={"return_token_ids": True},
    )
    prompt: Any = (answer.model_extra or {}).get("prompt_token_ids")
    written: Any = (answer.choices[0].model_extra or {}).get("token_ids")
    if prompt is None or written is None:
        raise ServerError("the server returns no token ids; this vLLM does not know return_token_ids")
    if prompt != ask.tokens:
        raise ServerError(
            f"{name}: the server read other tokens than the prompt's; it has another template"
        )
    return LiveChat([*prompt, *written], len(prompt), ask.is_real)


def _newest(redis: Redis) -> dict[bytes, bytes]:
    """Return the id of each stream's newest entry, after which to read."""
    newest: dict[bytes, bytes] = {}
    for stream in _streams(redis):
        info: Any = redis.xinfo_stream(stream)
        newest[stream] = info["last-generated-id"]
    return newest


def _streams(redis: Redis) -> list[bytes]:
    return list(redis.scan_iter(match=ACTIVATIONS_PATTERN))


def _follow(
    redis: Redis, last: dict[bytes, bytes], sent: Sequence["Future[LiveChat]"]
) -> tuple[list[Record], int]:
    """Read new entries until all answers are in and the streams are quiet.

    Returns the records and the number of invalid entries.
    """
    records: list[Record] = []
    unreadable = 0
    changed = time.monotonic()
    while time.monotonic() < changed + _QUIET_SECONDS:
        after: dict[Any, Any] = {stream: last.get(stream, b"0") for stream in _streams(redis)}
        answers: Any = []
        if after:
            answers = redis.xread(after, block=_WAIT_MILLISECONDS)
        else:
            time.sleep(_WAIT_MILLISECONDS / 1000)
        for stream, entries in answers:
            for entry, fields in entries:
                last[stream] = entry
                try:
                    records.append(decode(fields[FIELD_HEADER], fields[FIELD_VECTOR]))
                except (KeyError, RecordError):
                    unreadable += 1
        if answers or not all(one.done() for one in sent):
            changed = time.monotonic()
        if any(one.done() and one.exception() for one in sent):
            break
    return records, unreadable
