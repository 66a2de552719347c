from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import torch

from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.tenant import DEFAULT_TENANT
from subtext_sidecar.local.ledger import Ledger
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.capture import Capture
from subtext_sidecar.plugin.sampling.memory import Memory
from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.handover import Handover
from subtext_sidecar.plugin.transfer.ring import open_ring
from tests.support.picked import rows_of
from tests.support.secret import KEY

EVERY_ROW = CapturePolicy(
    decode_stride=1, window=1, prompt_window=2, skip_first=0, max_rows_per_request=1000
)
NO_ROW = msgspec.structs.replace(EVERY_ROW, request_rate=0.0)
SELDOM = msgspec.structs.replace(EVERY_ROW, decode_stride=1000, prompt_window=0)


class OneStepRunner:
    """A runner that always has the same batch waiting: three rows of request "a" and two of "b"."""

    name = "fake"

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.steps_read = 0
        self.state: Any = object()
        self.rows = 5
        self._dtype = dtype

    def enable(self, aux_layer: int) -> None:
        pass

    def disable(self) -> None:
        pass

    def executed(self) -> Any:
        return self.state

    def received(self, result: Any) -> list[str]:
        return result or []

    def step(self, executed: Any, rows: int) -> Step:
        assert executed is self.state
        assert rows == self.rows
        self.steps_read += 1
        return Step(
            ["a-00000000", "b-00000000"],
            [0, 3, 5],
            [0, 0],
            torch.arange(20.0).reshape(5, 4).to(self._dtype),
            4,
            torch.arange(5, dtype=torch.int32),
            torch.tensor([0, 1, 2, 0, 1]),
        )


class Plugin:
    """A capture with a ring of its own, and what it counts and hands over."""

    def __init__(
        self,
        policy: CapturePolicy = EVERY_ROW,
        rows: int = 10,
        runner: OneStepRunner | None = None,
        halves: EngineHalves = WHOLE,
        *,
        memory: Memory | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        self.runner = runner or OneStepRunner()
        self.handover: Handover = Handover()
        self.ledger = Ledger(source="s", hop=Hop.PLUGIN)
        self.capture = Capture(
            runner=self.runner,
            policy=policy,
            model="m",
            ledger=self.ledger,
            ring=open_ring(Layout(rows, 4, torch.float32), torch.device("cpu")),
            handover=self.handover,
            context=1000,
            key=KEY,
            halves=halves,
            randomized_ids=True,
            tenant=tenant,
            memory=memory,
        )

    def step(self, one: Any) -> None:
        self.capture.after_execute(one)
        self.capture.after_sample()

    def counts(self) -> Counter[tuple[str, str]]:
        total: Counter[tuple[str, str]] = Counter()
        for count in self.ledger.take_changed():
            total.update({(count.stratum, counter): value for counter, value in count.counts.items()})
        return total

    def steps_measured(self) -> dict[str, int]:
        return {sampled: sum(part.counts) for sampled, part in self.capture.overhead.read().items()}


def scheduled(new: dict[str, int], finished: set[str] | None = None, tokens: int = 3, **args: Any) -> Any:
    params = SimpleNamespace(extra_args=args or None, max_tokens=16)
    return SimpleNamespace(
        finished_req_ids=finished or set(),
        scheduled_new_reqs=[
            SimpleNamespace(
                req_id=key,
                prompt_len=length,
                sampling_params=params,
                lora_request=None,
                num_computed_tokens=0,
                prompt_embeds=None,
                prompt_is_token_ids=None,
                prompt_token_ids=None,
            )
            for key, length in new.items()
        ],
        total_num_scheduled_tokens=tokens + 2,
        num_scheduled_tokens={"a-00000000": tokens, "b-00000000": 2},
        scheduled_spec_decode_tokens={},
    )


COUNTED = {"ignored_kv_transfer", "requests_continued"}
BOTH = {"a-00000000": 3, "b-00000000": 2}


def test_picked_rows_are_handed_over_after_sampling_and_counted_when_their_fate_is_known() -> None:
    plugin = Plugin()

    plugin.capture.after_execute(scheduled(BOTH))
    assert not plugin.handover
    plugin.capture.after_sample()

    (batch,) = plugin.handover
    assert batch.read().token_ids.tolist() == [1, 2, 3, 4]
    assert batch.read().vectors.view("<f4")[:, 0].tolist() == [4, 8, 12, 16]
    assert [(row.request_id, row.position) for row in rows_of(batch.picked)] == [
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
    ]
    assert plugin.counts() == {("uniform", "requests_seen"): 2, ("uniform", "requests_sampled"): 2}
    assert plugin.steps_measured() == {"none": 0, "some": 1}


def test_rows_without_room_are_dropped_and_counted_and_the_engine_goes_on() -> None:
    plugin = Plugin(rows=4)

    plugin.step(scheduled(BOTH))
    plugin.step(scheduled({"a-00000001": 3}, finished=set(BOTH)))
    assert len(plugin.handover) == 1
    plugin.capture.after_execute(scheduled(BOTH))
    plugin.capture.after_sample()

    assert len(plugin.handover) == 1
    counts = plugin.counts()
    assert counts["uniform", "dropped_queue_full"] == counts["uniform", "rows_sampled"] == 4


def test_all_that_is_counted_is_of_the_engines_tenant() -> None:
    plugin = Plugin(rows=1, tenant="acme")
    plugin.step(scheduled({"a-00000000": 3, "b-00000000": 2}))

    counts = plugin.ledger.take_changed()

    assert {count.tenant for count in counts} == {"acme"}
    assert {"requests_seen", "rows_sampled"} <= {name for count in counts for name in count.counts}


def test_of_a_step_with_more_rows_than_the_ring_the_first_are_kept_and_the_others_counted() -> None:
    plugin = Plugin(rows=3)

    plugin.step(scheduled(BOTH))

    (batch,) = plugin.handover
    assert [row.position for row in rows_of(batch.picked)] == [1, 2, 0]
    assert plugin.counts()["uniform", "dropped_queue_full"] == 1


def test_a_block_that_returns_another_type_than_foreseen_gets_a_ring_of_its_own() -> None:
    plugin = Plugin(runner=OneStepRunner(torch.bfloat16))

    plugin.step(scheduled(BOTH))

    (batch,) = plugin.handover
    assert batch.ring.layout == Layout(10, 4, torch.bfloat16)
    assert batch.read().vectors.shape == (4, 8)


def test_a_step_without_sampled_requests_does_not_even_read_the_runner() -> None:
    plugin = Plugin(NO_ROW)

    plugin.step(scheduled(BOTH))

    assert plugin.runner.steps_read == 0
    assert plugin.counts() == {("uniform", "requests_seen"): 2}
    assert plugin.steps_measured() == {"none": 1, "some": 0}


def test_a_step_in_which_no_wanted_position_can_be_reached_does_not_read_the_runner() -> None:
    plugin = Plugin(SELDOM)

    plugin.step(scheduled(BOTH))

    assert plugin.runner.steps_read == 0
    assert plugin.steps_measured() == {"none": 1, "some": 0}


def test_what_the_client_asked_for_reaches_the_watchlist() -> None:
    plugin = Plugin(msgspec.structs.replace(NO_ROW, honour_opt_in=True))

    plugin.step(scheduled(BOTH, subtext="on"))

    assert plugin.counts()["opt_in", "requests_sampled"] == 2
    assert {row.stratum for row in rows_of(plugin.handover[0].picked)} == {"opt_in"}


def test_a_policy_set_while_running_decides_about_later_requests() -> None:
    plugin = Plugin(NO_ROW)
    assert plugin.capture.request_rate == 0.0

    plugin.capture.set_policy(EVERY_ROW)
    plugin.step(scheduled(BOTH))

    assert plugin.capture.request_rate == 1.0
    assert len(plugin.handover) == 1


def test_finished_requests_are_not_looked_for_any_more() -> None:
    plugin = Plugin()
    plugin.step(scheduled({"a-00000000": 3}))

    plugin.step(scheduled({}, finished={"a-00000000"}))

    assert plugin.runner.steps_read == 1


def test_a_request_aborted_right_after_its_step_was_launched_keeps_the_row_that_really_ran() -> None:
    plugin = Plugin()

    plugin.capture.after_execute(scheduled({"a-00000000": 3}))
    # The abort reaches the worker with the next step only; this step's row was computed from its own text.
    plugin.capture.after_sample()
    plugin.step(scheduled({}, finished={"a-00000000"}))

    (batch,) = plugin.handover
    assert [row.position for row in rows_of(batch.picked)] == [1, 2]
    assert batch.read().positions.tolist() == [1, 2]
    assert plugin.runner.steps_read == 1


def test_a_step_that_was_never_sampled_leaves_no_row_and_its_requests_are_followed() -> None:
    plugin = Plugin()

    plugin.capture.after_execute(scheduled(BOTH))
    plugin.step(scheduled({}, finished=set(BOTH)))

    assert not plugin.handover
    assert plugin.counts()["uniform", "requests_seen"] == 2


def test_requests_that_come_and_go_without_a_launched_batch_are_followed() -> None:
    plugin = Plugin()
    plugin.runner.state = None

    plugin.capture.after_execute(scheduled(BOTH))
    plugin.capture.after_execute(scheduled({}, finished=set(BOTH)))
    plugin.capture.after_sample()

    assert plugin.counts()["uniform", "requests_sampled"] == 2
    assert plugin.steps_measured() == {"none": 0, "some": 0}
    assert plugin.runner.steps_read == 0


def test_a_prompt_is_the_other_engines_only_where_a_connector_brought_it() -> None:
    """By an asynchronous load in an earlier step, or by a load within the step, which names nobody."""
    plugin = Plugin(halves=EngineHalves(writes_answers=True))

    def arrive(internal_id: str, *, is_loading: bool = False) -> dict[str, int]:
        one = scheduled({internal_id: 3}, kv_transfer_params={"transfer_id": "t"})
        one.scheduled_new_reqs[0].num_computed_tokens = 2
        one.has_sync_kv_loads = is_loading
        plugin.step(one)
        return {name: count for (_, name), count in plugin.counts().items() if name in COUNTED}

    plugin.capture.after_execute(scheduled({}), ["b-00000000"])
    plugin.capture.after_sample()

    ignored, continued = "ignored_kv_transfer", "requests_continued"
    assert arrive("a-00000000") == {ignored: 1}
    assert arrive("b-00000000") == {ignored: 1, continued: 1}
    assert arrive("c-00000000", is_loading=True) == {ignored: 1, continued: 2}
    assert arrive("d-00000000") == {ignored: 2, continued: 2}


def test_the_next_capture_of_an_engine_knows_which_transfers_were_used() -> None:
    """Who can cause an error could otherwise send an id again that he saw was not sampled."""
    memory, halves = Memory(lambda: 0.0), EngineHalves(writes_answers=True)

    def arrive(plugin: Plugin, internal_id: str, transfer_id: str) -> Counter[tuple[str, str]]:
        one = scheduled({internal_id: 3}, kv_transfer_params={"transfer_id": transfer_id})
        one.scheduled_new_reqs[0].num_computed_tokens = 2
        one.has_sync_kv_loads = True
        plugin.step(one)
        return plugin.counts()

    before = Plugin(halves=halves, memory=memory)
    assert arrive(before, "a-00000000", "x")["uniform", "ignored_transfer_id"] == 0
    before.capture.abandon()
    again = Plugin(halves=halves, memory=memory)

    assert arrive(again, "b-00000000", "x")["uniform", "ignored_transfer_id"] == 1
    assert arrive(again, "c-00000000", "y")["uniform", "ignored_transfer_id"] == 1
