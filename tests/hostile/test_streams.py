"""Models, layers and decoder versions on one Redis, and an upgrade from the one stream of before."""

import dataclasses
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from service.store.tables import Explanation, Model, Sample
from subtext_sidecar.contract import streams
from tests.support.waiting import wait_until
from tests.support.worker import MODEL, Bench, make_record
from workers.consumer import serving
from workers.consumer.queue import QueueSettings, StreamQueue
from workers.consumer.side import old_stream
from workers.nla.fake import FakeDecoder, fake_identity

ROWS = 20
OTHER = "org/other:model"


def stored(bench: Bench) -> dict[tuple[str, int], int]:
    """Explanations by model and layer."""
    with bench.sessions() as session:
        query = (
            select(Model.name, Sample.layer, func.count())
            .select_from(Explanation)
            .join(Sample, Explanation.sample_id == Sample.id)
            .join(Model, Sample.model_id == Model.id)
            .group_by(Model.name, Sample.layer)
        )
        return {(model, layer): count for model, layer, count in session.execute(query)}


@pytest.fixture
def three(make_bench: Callable[..., Bench]) -> list[Bench]:
    """Workers for two models, one of them at two layers."""
    kinds = ((MODEL, 1), (MODEL, 2), (OTHER, 1))
    return [make_bench(FakeDecoder(fake_identity(model=model, layer=layer))) for model, layer in kinds]


def test_models_and_layers_on_one_redis_are_each_read_by_their_own_decoder(three: list[Bench]) -> None:
    for bench, (model, layer) in zip(three, ((MODEL, 1), (MODEL, 2), (OTHER, 1)), strict=True):
        bench.add_samples(ROWS, model=model, layer=layer)

    for bench in three:
        bench.drain()

    assert stored(three[0]) == {(MODEL, 1): ROWS, (MODEL, 2): ROWS, (OTHER, 1): ROWS}
    assert [bench.dead_letters() for bench in three] == [[], [], []]


def test_a_rollout_of_a_decoder_version_loses_no_row_and_reads_none_twice(
    make_bench: Callable[..., Bench],
) -> None:
    old = make_bench(FakeDecoder(fake_identity()))
    new = make_bench(FakeDecoder(dataclasses.replace(fake_identity(), digest="f" * 64)))
    old.add_samples(ROWS)

    old.loop.step()
    new.loop.step()
    old.loop.step()
    new.drain()

    assert stored(old) == {(MODEL, 1): ROWS}
    assert old.dead_letters() == []


def test_an_upgrade_moves_what_lies_in_the_one_stream_of_before_to_where_it_belongs(
    three: list[Bench],
) -> None:
    client = three[0].client
    for position in range(ROWS):
        for model, layer in ((MODEL, 1), (MODEL, 2), (OTHER, 1)):
            header, vector = make_record(model=model, layer=layer, position=position)
            client.xadd(
                streams.OLD_ACTIVATIONS_STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}
            )
    client.xadd(streams.OLD_ACTIVATIONS_STREAM, {b"surprise": b"1"})
    # What a worker of before had in its hands when it died.
    dead = StreamQueue(client, QueueSettings(stream=streams.OLD_ACTIVATIONS_STREAM))
    dead.fetch(1, 10)
    held = dead.fetch(10, 10).entries
    dead.release(dict.fromkeys([entry.id for entry in held], 1))
    assert len(held) == 10
    threads = [threading.Thread(target=serving.serve, args=(bench.parts, bench.loop)) for bench in three]
    for thread in threads:
        thread.start()

    wait_until("the old stream is empty", lambda: not client.xlen(streams.OLD_ACTIVATIONS_STREAM), 60)
    wait_until("all is read", lambda: not sum(one.parts.queue.backlog().entries for one in three), 60)
    for bench in three:
        bench.stop.set()
    for thread in threads:
        thread.join(30)

    assert stored(three[0]) == {(MODEL, 1): ROWS, (MODEL, 2): ROWS, (OTHER, 1): ROWS}
    letters = [letter[streams.FIELD_REASON] for bench in three for letter in bench.dead_letters()]
    assert letters == [b"missing_field"]


def test_a_worker_makes_no_stream_of_before(three: list[Bench]) -> None:
    assert three[0].parts.old_stream.step() == 0
    assert not three[0].client.exists(streams.OLD_ACTIVATIONS_STREAM)


def test_a_full_stream_takes_nothing_from_the_one_of_before_where_the_old_bound_still_holds(
    three: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, old = three[0].client, three[0].parts.old_stream
    monkeypatch.setattr(old_stream, "MOST_ENTRIES", 3)
    for position in range(ROWS):
        header, vector = make_record(model=MODEL, layer=1, position=position)
        client.xadd(
            streams.OLD_ACTIVATIONS_STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}
        )

    # The first one makes the group.
    assert [old.step() for _ in range(3)] == [0, 3, 0]
    assert client.xlen(streams.OLD_ACTIVATIONS_STREAM) == ROWS - 3


def test_a_row_that_is_trimmed_while_it_is_moved_counts_on_both_sides(three: list[Bench]) -> None:
    bench = three[0]
    header, vector = make_record(model=MODEL, layer=1)
    bench.client.xadd(
        streams.OLD_ACTIVATIONS_STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}
    )
    queue = StreamQueue(bench.client, QueueSettings(stream=streams.OLD_ACTIVATIONS_STREAM))
    queue.fetch(1, 10)  # makes the group
    [entry] = queue.fetch(1, 10).entries
    bench.client.xtrim(streams.OLD_ACTIVATIONS_STREAM, maxlen=0, approximate=False)

    assert queue.move(entry, streams.activations_stream(MODEL, 1)) == 1
