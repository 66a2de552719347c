"""What the plugin touches in vLLM, looked up in the installed source without importing it."""

import ast
import importlib.util
from pathlib import Path

import pytest

from subtext_sidecar.plugin import activation

# Where the plugin is activated: callers of load_general_plugins, and who holds the configuration there.
CALLERS = [
    ("engine/arg_utils.py", "EngineArgs", "__post_init__", "self"),
    ("v1/engine/core.py", "EngineCore", "__init__", "vllm_config"),
    ("v1/worker/worker_base.py", "WorkerWrapperBase", "init_worker", "vllm_config"),
]
WRAPPED = ["load_model", "execute_model", "sample_tokens", "shutdown"]
STATE_FIELDS = {
    "v1/worker/gpu_model_runner.py": {"aux_hidden_states"},
    "v1/worker/gpu/model_runner.py": {"aux_hidden_states", "input_batch"},
}
RUNNER_ATTRIBUTES = {
    "v1/worker/gpu_model_runner.py": {
        "use_aux_hidden_state_outputs",
        "execute_model_state",
        "input_batch",
        "query_start_loc",
        "input_ids",
        "positions",
    },
    "v1/worker/gpu/model_runner.py": {"use_aux_hidden_state_outputs", "execute_model_state", "model"},
}
BATCH_FIELDS = {
    "req_ids",
    "num_reqs",
    "query_start_loc_np",
    "num_computed_tokens_np",
    "input_ids",
    "positions",
}
SCHEDULED_FIELDS = {
    "finished_req_ids",
    "scheduled_new_reqs",
    "total_num_scheduled_tokens",
    "scheduled_spec_decode_tokens",
}


def parsed(path: str) -> ast.Module:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / path).read_text())


def class_of(path: str, name: str) -> ast.ClassDef:
    return next(node for node in parsed(path).body if isinstance(node, ast.ClassDef) and node.name == name)


def method_of(path: str, class_name: str, name: str) -> ast.FunctionDef:
    members = class_of(path, class_name).body
    return next(node for node in members if isinstance(node, ast.FunctionDef) and node.name == name)


def fields_of(path: str, name: str) -> set[str]:
    members = class_of(path, name).body
    return {
        node.target.id
        for node in members
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def assigned_to_self(path: str, name: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(class_of(path, name))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@pytest.mark.parametrize(("path", "class_name", "method", "variable"), CALLERS)
def test_each_caller_of_general_plugins_still_holds_the_configuration(
    path: str, class_name: str, method: str, variable: str
) -> None:
    function = method_of(path, class_name, method)

    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    names |= {argument.arg for argument in function.args.args}
    assert {"load_general_plugins", variable} <= names


def test_engine_arguments_and_parallel_configuration_name_the_worker_extension() -> None:
    assert {"additional_config", "worker_extension_cls"} <= fields_of("engine/arg_utils.py", "EngineArgs")
    assert "worker_extension_cls" in fields_of("config/parallel.py", "ParallelConfig")


def test_vllm_still_mixes_a_worker_extension_in_before_it_creates_the_worker() -> None:
    source = ast.unparse(method_of("v1/worker/worker_base.py", "WorkerWrapperBase", "init_worker"))

    mixed = source.index("worker_class.__bases__ = worker_class.__bases__ + (worker_extension_cls,)")
    assert (
        source.index("load_general_plugins()")
        < mixed
        < source.index("self.worker = worker_class(**kwargs)")
    )


@pytest.mark.parametrize("name", WRAPPED)
def test_each_wrapped_method_still_exists(name: str) -> None:
    assert method_of("v1/worker/gpu_worker.py", "Worker", name)


@pytest.mark.parametrize("path", list(STATE_FIELDS))
def test_each_runner_keeps_what_its_adapter_reads(path: str) -> None:
    assert STATE_FIELDS[path] <= fields_of(path, "ExecuteModelState")
    assert RUNNER_ATTRIBUTES[path] <= assigned_to_self(path, "GPUModelRunner")
    assert method_of(path, "GPUModelRunner", "get_model")


def test_the_batch_and_the_scheduler_output_keep_their_fields() -> None:
    assert fields_of("v1/worker/gpu/input_batch.py", "InputBatch") >= BATCH_FIELDS
    assert fields_of("v1/core/sched/output.py", "SchedulerOutput") >= SCHEDULED_FIELDS
    assert {"req_id", "prompt_token_ids"} <= fields_of("v1/core/sched/output.py", "NewRequestData")
    assert method_of("v1/core/sched/output.py", "NewRequestData", "prompt_len")


def test_the_extension_is_named_by_its_real_path() -> None:
    module, _, name = activation.EXTENSION.rpartition(".")
    spec = importlib.util.find_spec(module)

    assert spec is not None
    assert spec.origin is not None
    assert f"class {name}:" in Path(spec.origin).read_text()
