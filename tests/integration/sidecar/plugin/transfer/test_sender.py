"""The sender's thread against a real socket."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import zmq
from msgspec.structs import replace

from subtext_sidecar.contract.counters import Hop, Stratum
from subtext_sidecar.contract.record import decode_coverage
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import Block, decode_block
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import Ledger
from subtext_sidecar.local.policy import CapturePolicy, PolicyUpdate
from subtext_sidecar.local.policy_channel import PolicyPublisher
from subtext_sidecar.plugin.sampling.request_args import request_facts
from subtext_sidecar.plugin.sampling.rule import Choice
from subtext_sidecar.plugin.sampling.watchlist import RowSelection, Watch
from subtext_sidecar.plugin.state import CaptureState
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.encoding import Identity
from subtext_sidecar.plugin.transfer.handover import Batch, Handover
from subtext_sidecar.plugin.transfer.ring import open_ring
from subtext_sidecar.plugin.transfer.sender import Sender
from tests.support.records import status
from tests.support.waiting import wait_until

DEADLINE_SECONDS = 20.0
ROWS = 8
EVERY_TOKEN = Choice(
    prompt_tokens=0,
    offset=0,
    stride=2,
    window=1,
    first_position=0,
    dense_stop=1_000_000,
    rest_start=1_000_000,
    stop=1_000_000,
    probability=1.0,
)


def step_of(rows: int, token_id: int = 7) -> Step:
    return Step(
        ["a"],
        [0, rows],
        [0],
        torch.ones(rows, 4),
        4,
        torch.full((rows,), token_id, dtype=torch.int32),
        torch.arange(rows),
    )


class Bench:
    """A sender, a ring of eight rows, and what they count."""

    def __init__(self, address: str) -> None:
        self.ring = open_ring(Layout(ROWS, 4, torch.float32), torch.device("cpu"))
        self.handover: Handover = Handover()
        self.state = CaptureState()
        self.state.start()
        self.policies: list[PolicyUpdate] = []
        self.ledger = Ledger(source="p1", hop=Hop.PLUGIN)
        self.sender = Sender(
            socket_address=address,
            handover=self.handover,
            ledger=self.ledger,
            identity=Identity("m", 20, frozenset({2})),
            fail=self.state.fail,
            status=status,
            set_policy=self.policies.append,
            view=CaptureView(),
        )

    def hand_over(self, rows: int, token_id: int = 7) -> None:
        watch = Watch(
            "internal", request_facts(["request"], Stratum.UNIFORM, None, "5" * 32), 0, EVERY_TOKEN
        )
        picked = RowSelection(list(range(rows)), [(watch, position) for position in range(rows)])
        run = self.ring.gather(step_of(rows, token_id), picked.indices)
        assert run is not None
        self.handover.append(Batch(picked, self.ring, run, 1_800_000_000.0))

    def is_empty(self) -> bool:
        """Tell whether every run was given back: only then is there room for as many rows as there are."""
        run = self.ring.gather(step_of(ROWS), list(range(ROWS)))
        if run is None:
            return False
        self.ring.release(run)
        return True

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for count in self.ledger.take_changed():
            assert (count.model, count.stratum, count.minute) == ("m", "uniform", 1_800_000_000 // 60)
            total.update(count.counts)
        return total


@contextmanager
def sidecar_at(address: str) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_SECONDS * 1000))
        socket.bind(address)
        yield socket


def last_told(socket: "zmq.Socket[bytes]", rows: int) -> Mapping[str, int]:
    """Return the counts of the first word that tells of so many rows; each word tells of all until then."""
    counts: Mapping[str, int] = {}
    while counts.get("rows_sampled", 0) < rows:
        kind, *frames = socket.recv_multipart()
        if kind == wire.COVERAGE:
            counts = decode_coverage(frames[0]).counts
    return counts


def test_rows_arrive_as_one_block_a_step_and_their_memory_is_given_back(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    bench = Bench(address)
    blocks: list[Block] = []
    with sidecar_at(address) as socket:
        bench.sender.start()
        assert socket.recv_multipart()[0] == wire.STATUS
        for rows in (3, 5):
            bench.hand_over(rows)
        while len(blocks) < 2:
            kind, *frames = socket.recv_multipart()
            if kind == wire.BLOCK:
                blocks.append(decode_block(frames[0], frames[1]))
        wait_until("the memory is given back", bench.is_empty, DEADLINE_SECONDS)
        bench.sender.close()
        coverage = last_told(socket, 8)

    assert [len(block) for block in blocks] == [3, 5]
    assert [row.position for row in blocks[1].header.rows] == [0, 1, 2, 3, 4]
    assert coverage == {"rows_sampled": 8, "rows_handed_over": 8}


def test_without_a_sidecar_rows_are_dropped_and_counted_and_memory_is_given_back(tmp_path: Path) -> None:
    bench = Bench(f"ipc://{tmp_path}/nobody")
    bench.hand_over(8)
    bench.sender.start()

    wait_until("the memory is given back", bench.is_empty, DEADLINE_SECONDS)
    bench.sender.close()

    assert bench.counts() == {"rows_sampled": 8, "dropped_socket_full": 8}


def test_what_is_queued_at_the_end_is_still_sent(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    bench = Bench(address)
    with sidecar_at(address) as socket:
        bench.sender.start()
        assert socket.recv_multipart()[0] == wire.STATUS
        bench.hand_over(2)
        bench.sender.close()

        kinds = [socket.recv_multipart()[0]]
        while kinds[-1] != wire.COVERAGE:
            kinds.append(socket.recv_multipart()[0])

    assert wire.BLOCK in kinds


def test_an_error_turns_capture_off_and_the_heartbeat_goes_on(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    bench = Bench(address)
    bench.hand_over(2)
    broken = bench.handover.popleft()
    bench.handover.append(replace(broken, run=replace(broken.run, mark=100_000)))
    with sidecar_at(address) as socket:
        bench.sender.start()
        wait_until("capture is off", lambda: not bench.state.enabled, DEADLINE_SECONDS)
        heartbeats = 0
        while heartbeats < 2:
            heartbeats += socket.recv_multipart()[0] == wire.STATUS
        bench.sender.close()

    assert bench.state.reason == "error_sender"
    assert bench.is_empty()


def test_the_policy_of_the_sidecar_is_followed(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    bench = Bench(address)
    update = PolicyUpdate(version="abc", capture=CapturePolicy(request_rate=0.25))
    with zmq.Context() as context, PolicyPublisher(context, address) as publisher:
        bench.sender.start()

        def followed() -> bool:
            publisher.publish(update)
            return bench.policies == [update]

        wait_until("the policy is followed", followed, DEADLINE_SECONDS)
        bench.sender.close()


def test_a_block_that_is_too_large_for_the_socket_is_counted_and_the_next_one_comes(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    bench = Bench(address)
    width = wire.MAX_FRAME_BYTES // 4 + 1  # one row is larger than a frame
    watch = Watch("internal", request_facts("request", Stratum.UNIFORM, None, "5" * 32), 0, EVERY_TOKEN)
    token_ids, positions = torch.tensor([7], dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    ring = open_ring(Layout(1, width, torch.float32), torch.device("cpu"))
    run = ring.gather(Step(["a"], [0, 1], [0], torch.ones(1, width), width, token_ids, positions), [0])
    assert run is not None
    kinds: list[bytes] = []
    with sidecar_at(address) as socket:
        bench.sender.start()
        assert socket.recv_multipart()[0] == wire.STATUS
        bench.handover.append(Batch(RowSelection([0], [(watch, 0)]), ring, run, 1_800_000_000.0))
        bench.hand_over(2)
        while wire.BLOCK not in kinds:
            kinds.append(socket.recv_multipart()[0])
        bench.sender.close()
        coverage = last_told(socket, 3)

    assert coverage == {"rows_sampled": 3, "rows_handed_over": 2, "dropped_oversized": 1}
    assert bench.state.enabled
