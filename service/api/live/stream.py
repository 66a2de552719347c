"""A subscription as server-sent events, for as long as somebody listens."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.live.hub import Hub, Listener, Part, State, Subscription, TooManyError
from service.errors import ProblemError

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 3
_RETRY_AFTER_SECONDS: Final = "30"
_VERSIONS: Final = re.compile(r"(?:[a-z]+=[0-9a-f]{16}(?:\.|$)){1,3}")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until its buffer is full
}


class EventStream(StreamingResponse):
    """Takes its place when it begins, and gives it up however it ends."""

    def __init__(
        self, hub: Hub, listener: Listener, last_event_id: str, *, heartbeat_seconds: float
    ) -> None:
        self._hub = hub
        self._listener = listener
        self._known = read_id(last_event_id)
        self._heartbeat_seconds = heartbeat_seconds
        self._subscription: Subscription | None = None
        super().__init__(self._events(), media_type=MEDIA_TYPE, headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until either side ends it; raises the 429 or 503 when there is no place."""
        try:
            self._subscription = self._hub.subscribe(self._listener)
        except TooManyError as error:
            raise _too_many(error) from error
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.unsubscribe(self._subscription)

    async def _events(self) -> AsyncIterator[bytes]:
        subscription = self._subscription
        if subscription is None:
            raise RuntimeError("a stream is sent before it has a place")
        yield f"retry: {RETRY_SECONDS * 1000}\n\n".encode()
        sent, was_away, clock = dict(self._known), False, asyncio.get_running_loop().time
        told_at = clock()
        while True:
            await subscription.wait(max(0.0, told_at + self._heartbeat_seconds - clock()))
            state = subscription.state
            for event in changes(state, sent):
                told_at = clock()
                yield event
            if state.end is not None:
                yield encode("end", json.dumps({"reason": state.end}).encode())
                return
            if state.is_away != was_away or clock() >= told_at + self._heartbeat_seconds:
                told_at = clock()
                yield _looked(state)
            was_away = state.is_away


def changes(state: State, sent: dict[str, str]) -> list[bytes]:
    """Return the events of every part that is not what was ``sent``, by version, and note them there."""
    events = []
    for part in Part:
        frame = state.frames.get(part)
        if frame is not None and sent.get(part) != frame.version:
            sent[part] = frame.version
            events.append(encode(part, frame.data, write_id(sent)))
    return events


def encode(event: str, data: bytes, identity: str | None = None) -> bytes:
    """Return one event; ``data`` is one line."""
    head = f"event: {event}\n" if identity is None else f"id: {identity}\nevent: {event}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def write_id(versions: Mapping[str, str]) -> str:
    """Return what tells of every part which version was sent last."""
    return ".".join(f"{part}={versions[part]}" for part in Part if part in versions)


def read_id(identity: str) -> dict[str, str]:
    """Return what `write_id` was given; nothing of an id that is none of ours: then all is sent again."""
    if not _VERSIONS.fullmatch(identity):
        return {}
    known = dict(pair.split("=") for pair in identity.rstrip(".").split("."))
    return {part: known[part] for part in Part if part in known}


def _looked(state: State) -> bytes:
    told = {"as_of": state.looked_at, "away": state.is_away}
    return encode("looked", json.dumps(told).encode())


def _too_many(error: TooManyError) -> ProblemError:
    is_ours = error.of_whom == "process"
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE if is_ours else HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_streams",
        f"there are as many event streams {error} as there may be; close one, or ask again without"
        f" Accept: {MEDIA_TYPE} for one answer",
        headers={"Retry-After": _RETRY_AFTER_SECONDS},
    )
