"""The hooks around a worker that computes nothing: what they do after an error."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zmq

from subtext_sidecar.contract.configuration import Kind
from subtext_sidecar.contract.record import decode_coverage
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import Block, decode_block
from subtext_sidecar.local.policy import CapturePolicy, PolicyUpdate
from subtext_sidecar.local.policy_channel import PolicyPublisher
from subtext_sidecar.local.wire import CaptureStatus
from subtext_sidecar.plugin.sampling.budget import ROOM
from subtext_sidecar.plugin.settings import parse_settings
from subtext_sidecar.plugin.state import CaptureState
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.ring import Ring
from subtext_sidecar.plugin.transfer.sender import Sender as RealSender
from subtext_sidecar.plugin.vllm import hooks
from subtext_sidecar.plugin.vllm.activation import LOGGER
from subtext_sidecar.plugin.vllm.hooks import WorkerHooks
from subtext_sidecar.plugin.vllm.refusal import Refusal
from tests.support.secret import write_secret
from tests.support.waiting import wait_until

PROMPT = 3
UNREADABLE = ("unreadable",)


class Runner:
    """Runs a prompt of each scheduled request at once."""

    name = "fake"

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def enable(self, aux_layer: int) -> None:
        pass

    def executed(self) -> Any:
        return self._runner.scheduled

    def received(self, result: Any) -> tuple[str, ...]:
        if result == UNREADABLE:
            raise RuntimeError("no output that we know")
        return result if isinstance(result, tuple) else ()

    def step(self, executed: Any, rows: int) -> Step:
        ids = [new.req_id for new in executed.scheduled_new_reqs]
        return Step(
            ids,
            [PROMPT * number for number in range(len(ids) + 1)],
            [0] * len(ids),
            torch.ones(rows, 4),
            4,
            torch.full((rows,), 7, dtype=torch.int32),
            torch.arange(PROMPT).repeat(len(ids)),
        )


class Worker:
    """What the hooks wrap."""

    def __init__(self) -> None:
        self.model_runner = SimpleNamespace(
            scheduled=None, device=torch.device("cpu"), get_model=lambda: None
        )
        self.steps = 0
        self.brought: tuple[str, ...] = ()  # whose prompts came in this step
        self.brought_late: tuple[str, ...] = ()

    def load_model(self) -> None:
        pass

    def execute_model(self, scheduled: Any) -> Any:
        self.model_runner.scheduled = scheduled
        return self.brought

    def sample_tokens(self) -> Any:
        self.steps += 1
        return self.brought_late or "tokens"

    def shutdown(self) -> None:
        pass


class Plugin:
    """A worker with hooks, the clock that they go by, and what they send."""

    def __init__(
        self, folder: Path, socket: "zmq.Socket[bytes]", *, kv_role: str = "", **fault: Any
    ) -> None:
        self.worker = Worker()
        self.now = 1000.0
        self.state = CaptureState()
        self.counts: dict[tuple[str, int], dict[str, int]] = {}
        self.statuses: list[CaptureStatus] = []
        self.rows = 0
        self.blocks: list[Block] = []
        self._socket = socket
        self._number = 0
        settings = parse_settings(
            {
                "layer": 1,
                "model": "m",
                "socket": f"ipc://{folder}/s",
                "secret_file": str(write_secret(folder / "secret")),
                "engines": 1,
                "skip_first": 0,
                **fault,
            }
        )
        model_config = SimpleNamespace(
            try_get_generation_config=dict,
            hf_text_config=SimpleNamespace(eos_token_id=None),
            get_hidden_size=lambda: 4,
            dtype=torch.float32,
            max_model_len=100,
        )
        self.parallel_config = SimpleNamespace(
            data_parallel_size=1, enable_elastic_ep=True, elastic_ep_max_dp_size=8
        )
        config = SimpleNamespace(
            model_config=model_config,
            kv_transfer_config=SimpleNamespace(
                is_kv_producer=kv_role == "kv_producer", is_kv_consumer=kv_role == "kv_consumer"
            ),
            parallel_config=self.parallel_config,
        )
        made: Any = self.worker
        hook = WorkerHooks(made, config, settings, self.state, clock=lambda: self.now)
        made.load_model, made.shutdown = hook.load_model, hook.shutdown
        made.load_model()

    def step(self, new: int = 1, **transfer: Any) -> None:
        """Serve requests that are new, with these parameters of a transfer; each ends with this step."""
        names = [f"r{self._number + one}-00000000" for one in range(new)]
        args = {"kv_transfer_params": transfer} if transfer else None
        finished = {f"r{self._number - 1}-00000000"}
        self._number += new
        scheduled = SimpleNamespace(
            finished_req_ids=finished,
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=name,
                    prompt_len=PROMPT,
                    sampling_params=SimpleNamespace(extra_args=args, max_tokens=16),
                    lora_request=None,
                    num_computed_tokens=PROMPT - 1 if transfer else 0,
                    prompt_embeds=None,
                    prompt_is_token_ids=None,
                    prompt_token_ids=None,
                )
                for name in names
            ],
            total_num_scheduled_tokens=PROMPT * new,
            scheduled_spec_decode_tokens={},
            has_sync_kv_loads=False,
        )
        assert self.worker.execute_model(scheduled) == self.worker.brought
        assert self.worker.sample_tokens() == (self.worker.brought_late or "tokens")

    def is_hooked(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                method.__name__
                for name, method in vars(self.worker).items()
                if name in {"execute_model", "sample_tokens"}
            )
        )

    def total(self, counter: str) -> int:
        return sum(counts.get(counter, 0) for counts in self.counts.values())

    def tells(self, reason: str) -> bool:
        """Whether the last heartbeat names it; the ones before may be of a moment before it."""
        return bool(self.statuses) and self.statuses[-1].reason == reason

    def receive(self) -> None:
        while self._socket.poll(0):
            kind, *frames = self._socket.recv_multipart()
            if kind == wire.COVERAGE:
                count = decode_coverage(frames[0])
                self.counts[count.stratum, count.minute] = count.counts
            elif kind == wire.STATUS:
                self.statuses.append(wire.decode_status(frames[0]))
            else:
                self.rows += 1
                self.blocks.append(decode_block(*frames))

    def wait_for(self, what: str, probe: Callable[[], object]) -> None:
        def is_seen() -> object:
            self.receive()
            return probe()

        wait_until(what, is_seen, 30)


@pytest.fixture
def make_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plugin]]:
    for name in ("refuse_config", "refuse_model", "refuse_runner"):
        monkeypatch.setattr(hooks, name, lambda *_: None)
    monkeypatch.setattr(hooks, "is_emitting_rank", lambda: True)
    monkeypatch.setattr(hooks, "randomizes_request_ids", lambda: True)
    monkeypatch.setattr(hooks, "RunnerV1", Runner)
    made: list[Plugin] = []
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{tmp_path}/s")

        def make(**fault: Any) -> Plugin:
            made.append(Plugin(tmp_path, socket, **fault))
            return made[-1]

        yield make
        for one in made:
            one.worker.shutdown()


ON = ("execute_model", "sample_tokens")
OFF = ("execute_model_while_off",)


@pytest.mark.parametrize("fault", ["execute_model", "sample_tokens"])
def test_after_an_error_in_a_step_capture_is_off_for_its_pause_and_then_on_again(
    make_plugin: Callable[..., Plugin], fault: str
) -> None:
    plugin = make_plugin(fault=fault, fault_uses=[1, 2])
    plugin.step()
    assert plugin.is_hooked() == ON

    plugin.step(new=2)
    assert plugin.is_hooked() == OFF
    assert (plugin.state.enabled, plugin.state.reason) == (False, f"error_{fault}")
    plugin.step()
    # Their memory is what capture begins anew in.
    plugin.wait_for("the rows of before", lambda: plugin.total("rows_handed_over") == 2)
    plugin.now += 29.0
    plugin.step()
    assert plugin.is_hooked() == OFF

    plugin.now += 1.0
    plugin.step(new=3)
    assert plugin.is_hooked() == ON
    assert plugin.state.enabled

    assert plugin.worker.steps == 5
    wanted = {
        "rows_handed_over": 2 * 4,
        "requests_seen": 4,
        "requests_sampled": 4,
        "unobservable_capture_off": 4,
        # The first was answered when the error came, and the engine had not said so yet.
        "unobservable_interrupted": 1,
    }
    plugin.wait_for("all counts", lambda: {name: plugin.total(name) for name in wanted} == wanted)
    plugin.wait_for("the error", lambda: plugin.statuses and plugin.statuses[-1].errors == {fault: 1})


def test_after_a_pause_the_budget_knows_what_it_knew(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin(rows_per_second=1, fault="execute_model", fault_uses=[1, 2])
    plugin.step(new=50)
    plugin.step()
    plugin.wait_for("the rows of before", lambda: plugin.total("rows_sampled") > 0)
    plugin.now += 30.0
    plugin.step()
    assert plugin.is_hooked() == ON
    plugin.wait_for("on", lambda: plugin.tells("ok"))

    # Fifty requests came, and of each two rows are wanted at least.
    assert plugin.statuses[-1].sampling_probability < 0.5


def test_whose_prompts_came_is_known_after_a_pause(make_plugin: Callable[..., Plugin]) -> None:
    """Or their requests would count as whole ones, and as prompts of the other engine besides."""
    plugin = make_plugin(kv_role="kv_consumer", fault="execute_model", fault_uses=[1, 2])
    plugin.worker.brought = ("r4-00000000",)
    plugin.step(do_remote_prefill=False, transfer_id="x")  # r0, whose prompt did not come
    plugin.worker.brought = ("r5-00000000",)
    plugin.step()  # r1
    assert plugin.is_hooked() == ("execute_model_while_off", "sample_tokens_while_off")
    plugin.worker.brought, plugin.worker.brought_late = ("r6-00000000",), ("r7-00000000",)
    plugin.step()  # r2
    plugin.wait_for("the rows of before", lambda: plugin.total("rows_handed_over") == 2)
    plugin.worker.brought = plugin.worker.brought_late = ()

    plugin.now += 30.0
    plugin.step()  # r3
    assert plugin.is_hooked() == ON
    for number in range(4, 9):
        plugin.step(do_remote_prefill=False, transfer_id=f"x{number}")

    wanted = {"requests_continued": 4, "ignored_kv_transfer": 2, "unobservable_capture_off": 2}
    plugin.wait_for("all counts", lambda: {name: plugin.total(name) for name in wanted} == wanted)


@pytest.mark.parametrize(
    ("method", "hook"), [("brought", "execute_model"), ("brought_late", "sample_tokens")]
)
def test_what_a_connector_brought_and_cannot_be_read_trips_the_breaker_and_is_not_final(
    make_plugin: Callable[..., Plugin], method: str, hook: str
) -> None:
    plugin = make_plugin(kv_role="kv_consumer")
    plugin.step()
    setattr(plugin.worker, method, UNREADABLE)
    plugin.step()
    assert plugin.is_hooked() == ("execute_model_while_off", "sample_tokens_while_off")
    assert not plugin.state.is_final
    assert plugin.state.errors == {hook: 1}

    plugin.step()  # while off, another one: counted, and the pause stays as long as it was
    assert not plugin.state.is_final
    assert plugin.state.errors == {hook: 2}
    setattr(plugin.worker, method, ())
    plugin.wait_for("the rows of before", lambda: plugin.total("rows_handed_over") >= 2)
    plugin.now += 30.0
    plugin.step()
    assert plugin.is_hooked() == ON
    assert plugin.state.enabled
    # Who came in those steps was counted.
    plugin.wait_for("the counts", lambda: plugin.total("unobservable_capture_off") == 2)


def test_an_error_of_the_sender_while_capture_begins_anew_is_not_forgotten(
    make_plugin: Callable[..., Plugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails: list[Callable[[str, Exception], None]] = []

    class Sender(RealSender):
        def __init__(self, *, fail: Callable[[str, Exception], None], **parts: Any) -> None:
            fails.append(fail)
            super().__init__(fail=fail, **parts)

    renewed = Ring.renewed

    def fail_once(ring: Ring) -> Ring:
        if fails:
            fails.pop()("sender", RuntimeError("between the look at the clock and the beginning"))
        return renewed(ring)

    monkeypatch.setattr(hooks, "Sender", Sender)
    monkeypatch.setattr(Ring, "renewed", fail_once)
    plugin = make_plugin(fault="execute_model", fault_uses=[0, 1])
    plugin.step()
    plugin.now += 30.0
    plugin.step()

    assert plugin.is_hooked() == OFF
    assert (plugin.state.enabled, plugin.state.reason) == (False, "error_sender")
    plugin.now += 59.0
    plugin.step()
    assert plugin.is_hooked() == OFF
    plugin.now += 1.0
    plugin.step()
    assert plugin.is_hooked() == ON
    assert plugin.state.enabled
    plugin.wait_for("the counts", lambda: plugin.total("unobservable_capture_off") == 3)


def test_an_engine_takes_its_part_of_the_budget_when_ranks_come_and_go(
    make_plugin: Callable[..., Plugin],
) -> None:
    """vLLM's elastic scaling changes the number in the configuration of each worker that stays."""
    plugin = make_plugin(rows_per_second=10, engines=None)
    plugin.step(new=50)
    # None has ended, so each counts as the most rows of its prompt and its 16 tokens: two of the prompt and
    # two windows of two.
    alone = ROOM * 10 / (50 * (2 + 2 * 2))

    def is_shared_by(ranks: int) -> bool:
        seen = plugin.statuses
        return bool(seen) and seen[-1].sampling_probability == pytest.approx(alone / ranks)

    # No request comes meanwhile, so nothing else changes the rate.
    plugin.wait_for("one rank", lambda: is_shared_by(1))
    plugin.parallel_config.data_parallel_size = 4
    plugin.wait_for("four ranks", lambda: is_shared_by(4))
    plugin.parallel_config.data_parallel_size = 2
    plugin.wait_for("two ranks", lambda: is_shared_by(2))


def test_an_error_that_stays_trips_again_after_ever_longer_pauses(
    make_plugin: Callable[..., Plugin],
) -> None:
    plugin = make_plugin(fault="sample_tokens")
    plugin.step()
    for errors, pause in enumerate((30, 60, 120, 240), 1):
        plugin.now += pause - 1
        plugin.step()
        assert plugin.state.errors == {"sample_tokens": errors}
        plugin.now += 1
        plugin.step()
        assert plugin.state.errors == {"sample_tokens": errors + 1}
        assert plugin.is_hooked() == OFF


def test_the_heartbeat_of_an_idle_engine_says_that_the_next_step_is_captured(
    make_plugin: Callable[..., Plugin],
) -> None:
    plugin = make_plugin(fault="execute_model", fault_uses=[0, 1])
    plugin.step()
    plugin.wait_for("off", lambda: plugin.tells("error_execute_model"))

    plugin.now += 30.0
    plugin.wait_for("on", lambda: plugin.tells("ok"))

    assert plugin.statuses[-1].enabled
    assert plugin.is_hooked() == OFF
    plugin.step()
    assert plugin.is_hooked() == ON


def test_an_error_of_the_sender_trips_too_and_it_begins_again(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin(fault="sender", fault_uses=[0, 1])
    wait_until("off", lambda: plugin.is_hooked() == OFF, 20)
    plugin.step()

    plugin.wait_for("its heartbeat", lambda: plugin.tells("error_sender"))
    assert not plugin.statuses[-1].enabled
    plugin.now += 30.0
    plugin.step()
    plugin.wait_for("the rows", lambda: plugin.total("rows_handed_over") == 2)
    plugin.wait_for("the counts", lambda: plugin.total("unobservable_capture_off") == 1)


def test_an_error_while_loading_is_for_good(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin(fault="load_model")

    plugin.now += 10_000.0
    plugin.step()

    assert plugin.is_hooked() == ()
    assert plugin.state.is_final
    plugin.wait_for("its heartbeat", lambda: plugin.tells("error_load_model"))
    assert not plugin.statuses[-1].enabled


def test_what_cannot_even_be_counted_is_for_good(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin()

    plugin.worker.execute_model(SimpleNamespace())  # no SchedulerOutput that we know
    plugin.worker.sample_tokens()

    assert plugin.is_hooked() == ()
    assert plugin.state.is_final
    plugin.now += 10_000.0
    plugin.step()
    assert plugin.is_hooked() == ()
    assert not plugin.state.enabled


def test_a_filter_of_the_operators_logging_that_raises_does_not_reach_vllm(
    make_plugin: Callable[..., Plugin],
) -> None:
    plugin = make_plugin()

    def refuse(_: logging.LogRecord) -> bool:
        raise RuntimeError("a filter of the operator's")

    logging.getLogger(LOGGER).addFilter(refuse)
    try:
        plugin.worker.execute_model(SimpleNamespace())  # no SchedulerOutput that we know
        plugin.worker.sample_tokens()
    finally:
        logging.getLogger(LOGGER).removeFilter(refuse)

    assert plugin.is_hooked() == ()
    assert plugin.state.is_final


def test_while_off_a_step_costs_next_to_nothing(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin(fault="execute_model", fault_uses=[0, 1])
    plugin.step()
    idle = SimpleNamespace(finished_req_ids=set(), scheduled_new_reqs=[])

    started = time.perf_counter()
    for _ in range(10_000):
        plugin.worker.execute_model(idle)
    assert (time.perf_counter() - started) / 10_000 < 20e-6


POLICY = CapturePolicy(request_rate=0.5, skip_first=0)


def told(status: CaptureStatus) -> dict[str, Any]:
    """Return what a heartbeat says that the engine runs, by kind."""
    return {one.kind: json.loads(one.content) for one in status.configurations}


def digest_of(status: CaptureStatus, kind: Kind) -> str:
    [found] = [one.digest for one in status.configurations if one.kind == kind]
    return found


def test_an_engine_tells_what_it_runs_and_its_rows_name_it(make_plugin: Callable[..., Plugin]) -> None:
    plugin = make_plugin()
    plugin.step()
    plugin.wait_for("rows and a heartbeat", lambda: plugin.blocks and plugin.tells("ok"))

    [status] = {one.configurations: one for one in plugin.statuses}.values()
    assert [*told(status)] == [Kind.MODEL, Kind.CAPTURE_POLICY, Kind.PLUGIN]
    assert told(status)[Kind.PLUGIN]["capture_policy"] == digest_of(status, Kind.CAPTURE_POLICY)
    [request] = plugin.blocks[0].header.requests
    assert request.configuration == digest_of(status, Kind.PLUGIN)


def test_the_policy_that_is_told_is_the_one_that_is_followed(
    make_plugin: Callable[..., Plugin], tmp_path: Path
) -> None:
    plugin = make_plugin()
    plugin.step()
    with zmq.Context() as context, PolicyPublisher(context, f"ipc://{tmp_path}/s") as publisher:

        def publish(update: PolicyUpdate) -> None:
            publisher.publish(update)
            plugin.receive()

        followed = PolicyUpdate(version="followed", capture=POLICY)
        wait_until(
            "the policy is followed",
            lambda: plugin.statuses and plugin.statuses[-1].policy_version == "followed",
            30,
            meanwhile=lambda: publish(followed),
        )
        assert told(plugin.statuses[-1])[Kind.CAPTURE_POLICY]["request_rate"] == 0.5

        # One that the engine cannot use: its window is longer than its stride.
        refused = PolicyUpdate(version="refused", capture=CapturePolicy(window=9, decode_stride=1))
        heard = len(plugin.statuses)
        wait_until(
            "two heartbeats",
            lambda: len(plugin.statuses) > heard + 1,
            30,
            meanwhile=lambda: publish(refused),
        )
    assert told(plugin.statuses[-1])[Kind.CAPTURE_POLICY]["request_rate"] == 0.5


def test_an_engine_that_was_refused_follows_no_policy(
    make_plugin: Callable[..., Plugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "refuse_model", lambda _: Refusal("no_reason", "a test"))
    plugin = make_plugin()
    plugin.wait_for("the refusal", lambda: plugin.tells("no_reason"))

    assert [*told(plugin.statuses[-1])] == [Kind.MODEL, Kind.PLUGIN]
    assert told(plugin.statuses[-1])[Kind.PLUGIN]["capture_policy"] is None


def test_a_model_whose_revision_cannot_be_told_is_captured_all_the_same(
    make_plugin: Callable[..., Plugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(hooks, "describe_model", fail)
    plugin = make_plugin()
    plugin.step()
    plugin.wait_for("rows and a heartbeat", lambda: plugin.blocks and plugin.tells("ok"))

    assert plugin.statuses[-1].configurations == ()
    assert plugin.blocks[0].header.requests[0].configuration is None


def test_a_policy_that_cannot_be_told_is_followed_all_the_same(
    make_plugin: Callable[..., Plugin], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no such thing")

    plugin = make_plugin()
    monkeypatch.setattr(hooks, "followed", fail)
    with zmq.Context() as context, PolicyPublisher(context, f"ipc://{tmp_path}/s") as publisher:

        def publish() -> None:
            publisher.publish(PolicyUpdate(version="followed", capture=POLICY))
            plugin.receive()

        wait_until(
            "the policy is followed",
            lambda: plugin.statuses and plugin.statuses[-1].policy_version == "followed",
            30,
            meanwhile=publish,
        )
    last = plugin.statuses[-1]
    assert (last.reason, last.errors, last.configurations) == ("ok", {}, ())
    assert last.sampling_probability == 0.5
