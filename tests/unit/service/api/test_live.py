"""Who listens shares one look; what is sent is what changed, and every stream has an end."""

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Collection, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.api.live import stream
from service.api.live.hub import (
    AwayError,
    End,
    Frame,
    Hub,
    Listener,
    Look,
    Part,
    State,
    Subscription,
    TooManyError,
)
from service.store.tenants.scope import Reach
from tests.support.waiting import wait_until

ALL = frozenset(Part)
ONE, OTHER = Reach(uuid.UUID(int=1)), Reach(uuid.UUID(int=2), ("tiny",))


def listener(reach: Reach = ONE, parts: frozenset[Part] = ALL, key: int = 7) -> Listener:
    return Listener(
        reach=reach, scopes=frozenset({"admin"}), parts=parts, key_id=uuid.UUID(int=key), session_id=None
    )


class Store:
    """What looks meet, and how often they did."""

    def __init__(self) -> None:
        self.looks: list[tuple[Reach, frozenset[Part], int]] = []
        self.data = b"{}"
        self.is_away = False
        self.over: dict[Listener, End] = {}

    def __call__(self, reach: Reach, parts: Collection[Part], listeners: Collection[Listener]) -> Look:
        if self.is_away:
            raise AwayError
        self.looks.append((reach, frozenset(parts), len(listeners)))
        return Look("2026-11-23T05:00:00+00:00", dict.fromkeys(parts, self.data), self.over)


@asynccontextmanager
async def subscribed(hub: Hub, *listeners: Listener) -> AsyncIterator[list[Subscription]]:
    yield [hub.subscribe(one) for one in listeners]
    hub.close()


def still(store: Store, **bounds: int) -> Hub:
    """Return a hub whose thread does not look by itself after its first look."""
    return Hub(store, every_seconds=3600, **bounds)


def test_all_listeners_of_one_reach_share_a_look_and_another_reach_has_its_own() -> None:
    store = Store()

    async def listen() -> None:
        hub = still(store)
        few = listener(parts=frozenset({Part.COVERAGE}), key=8)
        async with subscribed(hub, listener(), listener(), few, listener(OTHER)) as found:
            await wait_for(lambda: all(one.state.looked_at for one in found))
            store.looks.clear()
            hub.look()
            assert sorted(store.looks) == sorted([(ONE, ALL, 2), (OTHER, ALL, 1)])
            assert {*found[0].state.frames} == {*Part}
            assert {*found[2].state.frames} == {Part.COVERAGE}

    asyncio.run(listen())


def test_there_is_one_thread_and_it_sleeps_while_nobody_listens() -> None:
    store = Store()

    async def listen() -> None:
        others = live_threads()  # of tests that ran before in this process; they may end meanwhile
        hub = Hub(store, every_seconds=0.01)
        assert live_threads() <= others
        async with subscribed(hub, listener(), listener()) as found:
            await wait_for(lambda: len(store.looks) > 1)
            assert len(live_threads() - others) == 1
            for one in found:
                hub.unsubscribe(one)
            await asyncio.sleep(0.5)
            count = len(store.looks)
            await asyncio.sleep(0.5)
            assert len(store.looks) == count
        await wait_for(lambda: live_threads() <= others)

    asyncio.run(listen())


def live_threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "live"}


def test_places_are_bounded_for_each_and_for_all() -> None:
    async def listen() -> None:
        hub = still(Store(), at_most=3, of_one_at_most=2, of_tenant_at_most=3)
        async with subscribed(hub, listener(), listener(), listener(key=8)) as found:
            with pytest.raises(TooManyError) as of_one:
                hub.subscribe(listener())
            with pytest.raises(TooManyError) as of_tenant:
                hub.subscribe(listener(key=9))
            with pytest.raises(TooManyError) as of_all:
                hub.subscribe(listener(OTHER, key=10))
            whom = [one.value.of_whom for one in (of_one, of_tenant, of_all)]
            assert whom == ["key or session", "tenant", "process"]
            hub.unsubscribe(found[0])
            hub.unsubscribe(found[0])
            hub.subscribe(listener())
            assert hub.streams == 3

    asyncio.run(listen())


def test_while_the_store_is_away_the_last_look_stays_and_is_told_to_be_old() -> None:
    store = Store()

    async def listen() -> None:
        hub = still(store)
        async with subscribed(hub, listener()) as [one]:
            await wait_for(lambda: one.state.looked_at)
            store.is_away = True
            hub.look()
            assert one.state.is_away
            assert one.state.frames[Part.COVERAGE].data == b"{}"
            store.is_away = False
            hub.look()
            assert not one.state.is_away

    asyncio.run(listen())


def test_a_look_that_breaks_ends_the_thread_for_nobody() -> None:
    store, broken = Store(), threading.Event()

    def find(reach: Reach, parts: Collection[Part], listeners: Collection[Listener]) -> Look:
        if reach == OTHER and broken.is_set():
            raise ValueError(reach)
        return store(reach, parts, listeners)

    async def listen() -> None:
        hub = Hub(find, every_seconds=0.2)
        async with subscribed(hub, listener(), listener(OTHER, key=8)) as [one, other]:
            await wait_for(lambda: one.state.looked_at and other.state.looked_at)
            broken.set()
            await wait_for(lambda: other.state.is_away)
            assert not one.state.is_away
            broken.clear()
            await wait_for(lambda: not other.state.is_away)

    asyncio.run(listen())


def test_whose_access_is_over_is_told_nothing_more() -> None:
    store = Store()

    async def listen() -> None:
        hub = still(store)
        async with subscribed(hub, listener(), listener(key=8)) as [gone, stays]:
            await wait_for(lambda: gone.state.looked_at and stays.state.looked_at)
            store.over = {gone.listener: End.ACCESS_ENDED}
            store.data = b'{"new": 1}'
            hub.look()
            assert (gone.state.end, gone.state.frames) == (End.ACCESS_ENDED, {})
            assert stays.state.frames[Part.COVERAGE].data == store.data

    asyncio.run(listen())


def test_closing_ends_every_stream_and_who_comes_later() -> None:
    async def listen() -> None:
        hub = still(Store())
        async with subscribed(hub, listener()) as [one]:
            hub.close()
            await one.wait(5)
            assert one.state.end == End.SHUTTING_DOWN
            assert hub.subscribe(listener()).state.end == End.SHUTTING_DOWN

    asyncio.run(listen())


async def wait_for(is_so: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, "the hub has looked", is_so)


def test_only_what_changed_is_sent_and_the_id_tells_all_that_was() -> None:
    old, new = Frame("0" * 16, b'{"a":1}'), Frame("1" * 16, b'{"a":2}')
    sent: dict[str, str] = {}

    first = stream.changes(State(frames={Part.COVERAGE: old, Part.INCIDENTS: old}), sent)
    nothing = stream.changes(State(frames={Part.COVERAGE: old}), sent)
    second = stream.changes(State(frames={Part.COVERAGE: new, Part.INCIDENTS: old}), sent)

    assert [event.splitlines()[1:] for event in first] == [
        [b"event: coverage", b'data: {"a":1}', b""],
        [b"event: incidents", b'data: {"a":1}', b""],
    ]
    assert nothing == []
    assert second == [
        f'id: coverage={"1" * 16}.incidents={"0" * 16}\nevent: coverage\ndata: {{"a":2}}\n\n'.encode()
    ]
    assert stream.changes(State(frames={Part.COVERAGE: new}), stream.read_id(stream.write_id(sent))) == []


@pytest.mark.parametrize(
    "identity", ["", "7", "coverage", f"coverage={'0' * 15}", f"else={'0' * 16}", "x" * 9999]
)
def test_an_id_of_somebody_else_counts_as_none(identity: str) -> None:
    assert stream.read_id(identity) == {}


def test_a_listener_to_whom_nothing_new_is_told_hears_that_it_was_looked() -> None:
    async def listen() -> None:
        hub = Hub(Store(), every_seconds=0.01)
        answer = stream.EventStream(hub, listener(), "", heartbeat_seconds=1.0)
        sent: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if len(sent) == 6:
                hub.close()

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        events = [body.decode().split("\n") for body in sent if body.startswith((b"id", b"event"))]
        names = [line.removeprefix("event: ") for event in events for line in event if "event: " in line]
        assert names == ["coverage", "readings", "incidents", "looked", "end"]
        assert json.loads(events[3][1].removeprefix("data: ")) == {
            "as_of": "2026-11-23T05:00:00+00:00",
            "away": False,
        }
        assert hub.streams == 0

    asyncio.run(listen())
