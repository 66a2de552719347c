"""The adapters against recorded shapes of vLLM 0.32.0's and 0.33.0's runners."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from subtext_sidecar.plugin.step import CaptureError, Runner, Step
from subtext_sidecar.plugin.vllm.runner_v1 import RunnerV1
from subtext_sidecar.plugin.vllm.runner_v2 import RunnerV2


class FakeModel:
    def __init__(self) -> None:
        self.layers: tuple[int, ...] = ()

    def set_aux_hidden_state_layers(self, layers: tuple[int, ...]) -> None:
        self.layers = layers


def recorded_v1(aux: Any) -> Any:
    model = FakeModel()
    return SimpleNamespace(
        model=model,
        get_model=lambda: model,
        use_aux_hidden_state_outputs=False,
        execute_model_state=SimpleNamespace(aux_hidden_states=aux),
        input_batch=SimpleNamespace(
            req_ids=["a", "b"], num_computed_tokens_cpu=np.array([0, 7, 0, 0], dtype=np.int32)
        ),
        query_start_loc=SimpleNamespace(np=np.array([0, 3, 4, 4, 4], dtype=np.int32)),
        input_ids=SimpleNamespace(gpu=torch.arange(8)),
        positions=torch.tensor([0, 1, 2, 7, 0, 0, 0, 0]),
    )


def recorded_v2(aux: Any) -> Any:
    model = FakeModel()
    batch = SimpleNamespace(
        req_ids=["a", "b"],
        query_start_loc_np=np.array([0, 3, 4, 4], dtype=np.int32),
        num_computed_tokens_np=np.array([0, 7], dtype=np.int32),
        input_ids=torch.arange(8),
        positions=torch.tensor([0, 1, 2, 7, 0, 0, 0, 0]),
    )
    return SimpleNamespace(
        model=model,
        get_model=lambda: model,
        use_aux_hidden_state_outputs=False,
        execute_model_state=SimpleNamespace(aux_hidden_states=aux, input_batch=batch),
    )


def brought(*internal_ids: str) -> Any:
    return SimpleNamespace(kv_connector_output=SimpleNamespace(finished_recving=set(internal_ids) or None))


CASES = [(RunnerV1, recorded_v1), (RunnerV2, recorded_v2)]


def step_of(adapter: Any, runner: Any, rows: int) -> Step:
    one: Runner = adapter(runner)
    return one.step(one.executed(), rows)


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
def test_a_step_is_read_in_batch_order(adapter: Any, recorded: Any) -> None:
    residual = torch.zeros(8, 4)
    step = step_of(adapter, recorded([residual]), 4)

    assert step.request_ids == ["a", "b"]
    assert step.row_starts == [0, 3, 4]
    assert list(step.first_positions[:2]) == [0, 7]
    assert step.residual is residual
    assert step.d_model == 4
    assert step.token_ids[3].item() == 3
    assert step.positions[3].item() == 7


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
def test_as_many_rows_as_requests_are_one_row_each(adapter: Any, recorded: Any) -> None:
    assert step_of(adapter, recorded([torch.zeros(8, 4)]), 2).row_starts is None


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
def test_nothing_waits_for_sampling_without_a_state(adapter: Any, recorded: Any) -> None:
    runner = recorded([torch.zeros(8, 4)])
    runner.execute_model_state = None

    assert adapter(runner).executed() is None


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
@pytest.mark.parametrize(
    "aux", [None, [], [torch.zeros(8, 4)] * 2, [torch.zeros(2, 4)], [torch.zeros(8)], [object()]]
)
def test_another_output_than_the_one_asked_for_is_an_error(adapter: Any, recorded: Any, aux: Any) -> None:
    with pytest.raises(CaptureError):
        step_of(adapter, recorded(aux), 4)


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
def test_enabling_can_be_undone(adapter: Any, recorded: Any) -> None:
    runner = recorded(None)
    one: Runner = adapter(runner)

    one.enable(21)
    assert (runner.use_aux_hidden_state_outputs, runner.model.layers) == (True, (21,))
    one.disable()
    assert (runner.use_aux_hidden_state_outputs, runner.model.layers) == (False, ())


@pytest.mark.parametrize(("adapter", "recorded"), CASES)
def test_a_runner_that_uses_the_output_itself_is_left_alone(adapter: Any, recorded: Any) -> None:
    runner = recorded(None)
    runner.use_aux_hidden_state_outputs = True

    with pytest.raises(CaptureError):
        adapter(runner).enable(21)
    assert runner.model.layers == ()


def test_v1_keeps_until_it_samples_whose_keys_and_values_came() -> None:
    runner = recorded_v1([torch.zeros(8, 4)])
    adapter = RunnerV1(runner)
    runner.kv_connector_output = brought("a", "b").kv_connector_output

    assert set(adapter.received(None)) == {"a", "b"}
    runner.kv_connector_output = None
    assert list(adapter.received(None)) == []
    # Nothing was launched: the result tells.
    assert list(adapter.received(brought("c"))) == ["c"]
    assert list(adapter.received(brought())) == []
    assert list(adapter.received(SimpleNamespace(kv_connector_output=None))) == []


def test_v2_tells_in_its_result_whose_keys_and_values_came() -> None:
    adapter = RunnerV2(recorded_v2([torch.zeros(8, 4)]))

    assert list(adapter.received(None)) == []
    assert list(adapter.received(brought("a"))) == ["a"]
    assert list(adapter.received(SimpleNamespace(model_runner_output=brought("b")))) == ["b"]
    assert list(adapter.received(brought())) == []
