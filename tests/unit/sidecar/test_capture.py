from types import SimpleNamespace
from typing import Any

import torch

from subtext_sidecar.ledger import Ledger
from subtext_sidecar.plugin.capture import Capture
from subtext_sidecar.plugin.handover import RowQueue
from subtext_sidecar.plugin.sampling import Policy
from subtext_sidecar.plugin.step import Step

EVERY_ROW = Policy(1.0, 1, 1, 2, 0, 1000, 0)


class OneStepRunner:
    """A runner that always has the same batch waiting: three rows of request "a" and two of "b"."""

    name = "fake"

    def __init__(self) -> None:
        self.steps_read = 0

    def enable(self, aux_layer: int) -> None:
        pass

    def disable(self) -> None:
        pass

    def step(self) -> Step | None:
        self.steps_read += 1
        residual = torch.arange(20.0).reshape(5, 4)
        return Step(
            ["a-00000000", "b-00000000"],
            [0, 3, 5],
            [0, 0],
            residual,
            torch.arange(5),
            torch.tensor([0, 1, 2, 0, 1]),
        )


def scheduled(new: dict[str, int], finished: set[str] | None = None) -> Any:
    return SimpleNamespace(
        finished_req_ids=finished or set(),
        scheduled_new_reqs=[SimpleNamespace(req_id=key, prompt_len=length) for key, length in new.items()],
        total_num_scheduled_tokens=5,
        scheduled_spec_decode_tokens={},
    )


def capture_into(queue: RowQueue, policy: Policy = EVERY_ROW) -> tuple[Capture, Ledger]:
    ledger = Ledger(source="s", hop="plugin")
    return Capture(policy=policy, model="m", ledger=ledger, queue=queue, randomized_ids=True), ledger


def counts(ledger: Ledger) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in ledger.take_changed():
        for counter, value in count.counts.items():
            total[counter] = total.get(counter, 0) + value
    return total


def test_picked_rows_are_handed_over_after_sampling() -> None:
    queue = RowQueue(10)
    capture, ledger = capture_into(queue)

    capture.after_execute(OneStepRunner(), scheduled({"a-00000000": 3, "b-00000000": 2}))
    assert queue.get(0.0) is None
    capture.after_sample()

    batch = queue.get(0.0)
    assert batch is not None
    assert batch.staged.vectors[:, 0].tolist() == [4, 8, 12, 16]
    assert counts(ledger) == {"requests_seen": 2, "requests_sampled": 2, "rows_sampled": 4}
    assert sum(capture.overhead.counts) == 1


def test_rows_without_room_are_dropped_and_counted_and_the_engine_goes_on() -> None:
    queue = RowQueue(3)
    capture, ledger = capture_into(queue)

    capture.after_execute(OneStepRunner(), scheduled({"a-00000000": 3, "b-00000000": 2}))
    capture.after_sample()

    assert queue.get(0.0) is None
    assert counts(ledger)["dropped_queue_full"] == 4


def test_a_step_without_sampled_requests_does_not_even_read_the_runner() -> None:
    runner = OneStepRunner()
    capture, ledger = capture_into(RowQueue(10), EVERY_ROW._replace(request_rate=0.0))

    capture.after_execute(runner, scheduled({"a-00000000": 3, "b-00000000": 2}))
    capture.after_sample()

    assert runner.steps_read == 0
    assert counts(ledger) == {"requests_seen": 2}


def test_finished_requests_are_not_looked_for_any_more() -> None:
    runner = OneStepRunner()
    capture, _ = capture_into(RowQueue(100))
    capture.after_execute(runner, scheduled({"a-00000000": 3}))

    capture.after_execute(runner, scheduled({}, finished={"a-00000000"}))
    capture.after_sample()

    assert runner.steps_read == 1
