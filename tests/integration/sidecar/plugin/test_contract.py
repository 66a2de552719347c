"""What the plugin touches in vLLM, looked up in the source of the newest releases.

A failure names what moved. The names that the adapters read are taken from the plugin's own
source, so that a new one cannot be forgotten here.
"""

import ast
import importlib.util
from pathlib import Path

import pytest

from subtext_sidecar.plugin.vllm import activation
from tests.integration.sidecar.plugin.vllm_source import Source, releases, source_of

V1 = "v1/worker/gpu_model_runner.py"
V2 = "v1/worker/gpu/model_runner.py"
OUTPUT = "v1/core/sched/output.py"
MODEL = "config/model.py"
PARALLEL = "config/parallel.py"
SPECULATIVE = "config/speculative.py"

# What instances have: file, class, names.
ATTRIBUTES: list[tuple[str, str, str]] = [
    ("engine/arg_utils.py", "EngineArgs", "additional_config worker_extension_cls"),
    ("config/vllm.py", "VllmConfig", "additional_config model_config parallel_config speculative_config"),
    ("config/vllm.py", "VllmConfig", "kv_transfer_config cache_config"),
    ("config/cache.py", "CacheConfig", "kv_sharing_fast_prefill"),
    ("config/kv_transfer.py", "KVTransferConfig", "is_kv_producer is_kv_consumer kv_role"),
    ("v1/worker/gpu_worker.py", "Worker", "load_model execute_model sample_tokens shutdown"),
    ("v1/worker/gpu_worker.py", "Worker", "model_runner use_v2_model_runner"),
    (V1, "GPUModelRunner", "get_model use_aux_hidden_state_outputs execute_model_state device"),
    (V1, "GPUModelRunner", "input_batch query_start_loc input_ids positions"),
    (V1, "GPUModelRunner", "kv_connector_output"),
    (V1, "ExecuteModelState", "aux_hidden_states"),
    ("v1/worker/gpu_input_batch.py", "InputBatch", "req_ids num_computed_tokens_cpu"),
    ("v1/utils.py", "CpuGpuBuffer", "np gpu"),
    (V2, "GPUModelRunner", "get_model use_aux_hidden_state_outputs execute_model_state device"),
    (V2, "ExecuteModelState", "aux_hidden_states input_batch"),
    ("v1/worker/gpu/input_batch.py", "InputBatch", "req_ids query_start_loc_np"),
    ("v1/worker/gpu/input_batch.py", "InputBatch", "num_computed_tokens_np input_ids positions"),
    (OUTPUT, "SchedulerOutput", "finished_req_ids scheduled_new_reqs total_num_scheduled_tokens"),
    (OUTPUT, "SchedulerOutput", "scheduled_spec_decode_tokens has_sync_kv_loads"),
    (OUTPUT, "NewRequestData", "req_id prompt_len sampling_params lora_request"),
    (OUTPUT, "NewRequestData", "num_computed_tokens prompt_embeds prompt_is_token_ids prompt_token_ids"),
    ("v1/outputs.py", "ModelRunnerOutput", "kv_connector_output"),
    ("v1/outputs.py", "KVConnectorOutput", "finished_recving"),
    ("v1/worker/gpu/async_utils.py", "AsyncOutput", "model_runner_output"),
    ("sampling_params.py", "SamplingParams", "extra_args max_tokens"),
    (MODEL, "ModelConfig", "runner_type get_total_num_hidden_layers get_hidden_size dtype"),
    (MODEL, "ModelConfig", "served_model_name model hf_text_config try_get_generation_config"),
    (MODEL, "ModelConfig", "max_model_len"),
    # Read by their names, and told as null where they are gone.
    (MODEL, "ModelConfig", "hf_config revision tokenizer_revision quantization"),
    (PARALLEL, "ParallelConfig", "worker_extension_cls pipeline_parallel_size data_parallel_size"),
    (PARALLEL, "ParallelConfig", "enable_elastic_ep elastic_ep_max_dp_size"),
    (PARALLEL, "ParallelConfig", "prefill_context_parallel_size use_ubatching"),
    (SPECULATIVE, "SpeculativeConfig", "method enable_adaptive_verification"),
    ("distributed/parallel_state.py", "GroupCoordinator", "rank_in_group"),
]
FUNCTIONS: list[tuple[str, str]] = [
    ("plugins/__init__.py", "load_general_plugins"),
    ("model_executor/models/interfaces.py", "supports_eagle3"),
    ("model_executor/models/interfaces.py", "SupportsEagle3.set_aux_hidden_state_layers"),
    ("distributed/parallel_state.py", "get_tp_group"),
]
# Where the plugin is activated: callers of load_general_plugins, and who holds the configuration there.
CALLERS = [
    ("engine/arg_utils.py", "EngineArgs.__post_init__", "self"),
    ("v1/engine/core.py", "EngineCore.__init__", "vllm_config"),
    ("v1/worker/worker_base.py", "WorkerWrapperBase.init_worker", "vllm_config"),
]
# How vLLM works where the plugin relies on more than a name: file, where, and what stands there in order.
CODE: list[tuple[str, str, tuple[str, ...]]] = [
    # The extension is mixed in after plugins were loaded, before the worker is made with its configuration.
    (
        "v1/worker/worker_base.py",
        "WorkerWrapperBase.init_worker",
        (
            "load_general_plugins()",
            "worker_class.__bases__ = worker_class.__bases__ + (worker_extension_cls,)",
            "self.worker = worker_class(**kwargs)",
        ),
    ),
    ("v1/worker/worker_base.py", "WorkerWrapperBase.__getattr__", ("getattr(self.worker, attr)",)),
    ("v1/worker/worker_base.py", "WorkerWrapperBase.execute_model", ("self.worker.execute_model(",)),
    ("v1/worker/worker_base.py", "WorkerBase.__init__", ("vllm_config: VllmConfig",)),
    # The worker's methods are what the executors call, by name.
    ("v1/executor/uniproc_executor.py", "UniProcExecutor.execute_model", ("'execute_model'",)),
    ("v1/executor/uniproc_executor.py", "UniProcExecutor.sample_tokens", ("'sample_tokens'",)),
    ("v1/executor/multiproc_executor.py", "MultiprocExecutor.execute_model", ("'execute_model'",)),
    ("v1/executor/multiproc_executor.py", "MultiprocExecutor.sample_tokens", ("'sample_tokens'",)),
    ("v1/worker/gpu_worker.py", "Worker.execute_model", ("self.model_runner.execute_model(",)),
    ("v1/worker/gpu_worker.py", "Worker.sample_tokens", ("self.model_runner.sample_tokens(",)),
    # The state waits from the end of execute_model to the beginning of sample_tokens.
    (V1, "GPUModelRunner.execute_model", ("self.execute_model_state = ExecuteModelState(",)),
    (V1, "GPUModelRunner.sample_tokens", ("self.execute_model_state = None",)),
    (V2, "GPUModelRunner.execute_model", ("self.execute_model_state = ExecuteModelState(",)),
    (V2, "GPUModelRunner.sample_tokens", ("self.execute_model_state = None",)),
    # The auxiliary output is unpacked by the flag alone; V2 looks at it in load_model, before the plugin.
    (V1, "GPUModelRunner.execute_model", ("if self.use_aux_hidden_state_outputs:", "aux_hidden_states = ")),
    (V2, "GPUModelRunner.execute_model", ("if self.use_aux_hidden_state_outputs:", "aux_hidden_states = ")),
    # What both engines of a prefill/decode split know a request by, and where it stands.
    (
        "v1/request.py",
        "Request.__init__",
        ("self.kv_transfer_params = sampling_params.extra_args.get('kv_transfer_params')",),
    ),
    (
        "distributed/kv_transfer/kv_connector/v1/nixl/pull_scheduler.py",
        "NixlPullConnectorScheduler.request_finished",
        ("remote_request_id=request.request_id",),
    ),
    # A rank of a model without experts is told that it is alone, before plugins are loaded in it.
    (
        "v1/engine/core.py",
        "EngineCoreProc.run_engine_core",
        ("parallel_config.reconfigure_for_independent_dp_rank()", "EngineCoreProc("),
    ),
    # Each input of a session is scheduled as new, with a prompt that has grown.
    (
        "v1/core/sched/scheduler.py",
        "Scheduler._update_request_as_session",
        (
            "session.prompt_token_ids.extend(update.prompt_token_ids or ())",
            "session.status = RequestStatus.WAITING",
        ),
    ),
    # Where it is told whose prompt a connector brought: V1 keeps it until it samples, V2 returns it.
    (V1, "GPUModelRunner.execute_model", ("self.kv_connector_output = kv_connector_output",)),
    (V2, "GPUModelRunner.sample_tokens", ("model_runner_output.kv_connector_output = ",)),
    (
        "v1/worker/gpu/kv_connector.py",
        "ActiveKVConnector.post_forward",
        ("output.finished_recving = transfer_results.finished_recving",),
    ),
    # Elastic scaling tells each worker that stays how many ranks there are now.
    (
        "distributed/elastic_ep/elastic_execute.py",
        "ElasticEPScalingExecutor.switch_and_prepare",
        (
            "parallel_config = self.worker.vllm_config.parallel_config",
            "parallel_config.data_parallel_size = new_dp_size",
        ),
    ),
    # What a beam is called: by the whole request, without the number of its prompt.
    (
        "entrypoints/generate/beam_search/online.py",
        "BeamSearchOnlineMixin",
        ("request_id_batch = f'{request_id}-{random_uuid()}'", "f'{request_id_batch}-beam-{i}'"),
    ),
    (
        "entrypoints/openai/completion/serving.py",
        "OpenAIServingCompletion",
        ("self.beam_search(prompt=engine_input, request_id=request_id,",),
    ),
    # The columns that the ring is made for.
    (
        V1,
        "GPUModelRunner.__init__",
        ("self.input_ids = self._make_buffer(self.max_num_tokens, dtype=torch.int32)",),
    ),
    (
        V1,
        "GPUModelRunner.__init__",
        ("self.positions = torch.zeros(self.max_num_tokens, dtype=torch.int64",),
    ),
    (
        "v1/worker/gpu/input_batch.py",
        "InputBuffers",
        ("self.input_ids = torch.zeros(max_num_tokens, dtype=torch.int32",),
    ),
    (
        "v1/worker/gpu/input_batch.py",
        "InputBuffers",
        ("self.positions = torch.zeros(max_num_tokens, dtype=torch.int64",),
    ),
    # Id k is the residual stream that enters block k.
    (
        "model_executor/models/interfaces.py",
        "EagleModelMixin._maybe_add_hidden_state",
        ("if layer_idx in self.aux_hidden_state_layers", "hidden_states + residual"),
    ),
]
# The batch is read after it was sampled: only what runs before may write what tells whose rows are whose.
WRITERS = {
    "__init__",
    "_update_states",
    "_update_streaming_request",
    "_prepare_inputs",
    "_prepare_input_ids",
    "_preprocess",
    "_dummy_run",
    "may_reinitialize_input_batch",
}
BATCH = {
    "self.input_batch",
    "self.input_batch.num_computed_tokens_cpu",
    "self.query_start_loc",
    "self.query_start_loc.np",
    "self.input_ids",
    "self.input_ids.gpu",
    "self.positions",
}
ENVIRONMENT = ["VLLM_DISABLE_REQUEST_ID_RANDOMIZATION"]
# Names under which the plugin's modules hold objects of vLLM.
FOREIGN = {
    "vllm.runner_v1": {"runner", "executed", "batch", "query_start_loc", "input_ids", "output"},
    "vllm.runner_v2": {"runner", "executed", "batch", "output"},
    "vllm.aux_output": {"runner"},
    "capture": {"scheduled", "new", "params"},
    "vllm.engine": {"vllm_config", "model_config", "envs", "transfer", "parallel"},
    "vllm.refusal": {"vllm_config", "model", "parallel", "runner"},
    "vllm.hooks": {"worker"},
}
LISTED = {name for _, _, names in ATTRIBUTES for name in names.split()} | {
    *ENVIRONMENT,
    *(name.rpartition(".")[2] for _, name in FUNCTIONS),
}


@pytest.fixture(scope="module", params=releases())
def source(request: pytest.FixtureRequest, state_dir: Path) -> Source:
    return source_of(str(request.param), state_dir)


def test_the_newest_releases_are_pinned_newest_first() -> None:
    versions = [tuple(map(int, version.split("."))) for version in releases()]

    assert len(versions) >= 2
    assert versions == sorted(versions, reverse=True)


def moved(source: Source, attributes: list[tuple[str, str, str]]) -> list[str]:
    return [
        f"vLLM {source.version} has moved {path}: {class_name}.{name}"
        for path, class_name, names in attributes
        for name in sorted(set(names.split()) - source.attributes(path, class_name))
    ]


def test_every_attribute_that_the_plugin_reads_is_still_there(source: Source) -> None:
    assert moved(source, ATTRIBUTES) == []


def test_what_moved_is_named(source: Source) -> None:
    gone = moved(source, [(V2, "ExecuteModelState", "input_batch vanished"), ("no.py", "None", "at_all")])

    assert gone == [
        f"vLLM {source.version} has moved {V2}: ExecuteModelState.vanished",
        f"vLLM {source.version} has moved no.py: None.at_all",
    ]


@pytest.mark.parametrize(("path", "name"), FUNCTIONS)
def test_every_function_that_the_plugin_calls_is_still_there(source: Source, path: str, name: str) -> None:
    assert source.definition(path, name) is not None, f"vLLM {source.version} has moved {path}: {name}"


@pytest.mark.parametrize(("path", "name", "variable"), CALLERS)
def test_each_caller_of_general_plugins_still_holds_the_configuration(
    source: Source, path: str, name: str, variable: str
) -> None:
    function = source.definition(path, name)

    assert isinstance(function, ast.FunctionDef), f"vLLM {source.version} has moved {path}: {name}"
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    names |= {argument.arg for argument in function.args.args}
    assert {"load_general_plugins", variable} <= names, f"vLLM {source.version}: {path}: {name}"


@pytest.mark.parametrize(("path", "name", "fragments"), CODE)
def test_vllm_still_works_the_way_the_plugin_relies_on(
    source: Source, path: str, name: str, fragments: tuple[str, ...]
) -> None:
    text, at = source.text(path, name), 0

    for fragment in fragments:
        found = text.find(fragment, at)
        assert found >= 0, f"vLLM {source.version}: {path}: {name} has no {fragment!r} where it was"
        at = found


def test_nothing_that_runs_after_the_forward_pass_writes_whose_rows_are_whose(source: Source) -> None:
    assert source.writers(V1, "GPUModelRunner", BATCH) <= WRITERS
    assert source.writers(V1, "GPUModelRunner", BATCH) >= {"_update_states", "_prepare_inputs"}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_every_environment_variable_that_the_plugin_reads_is_still_there(source: Source, name: str) -> None:
    module = source.module("envs.py")

    assert module is not None
    keys = {node.value for node in ast.walk(module) if isinstance(node, ast.Constant)}
    assert name in keys, f"vLLM {source.version} has moved envs.py: {name}"


@pytest.mark.parametrize("module", list(FOREIGN))
def test_every_name_that_the_plugins_source_reads_from_vllm_is_listed_above(module: str) -> None:
    spec = importlib.util.find_spec(f"subtext_sidecar.plugin.{module}")
    assert spec is not None
    assert spec.origin is not None

    read = {
        node.attr
        for node in ast.walk(ast.parse(Path(spec.origin).read_text()))
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id in FOREIGN[module])
            or (isinstance(node.value, ast.Attribute) and node.value.attr.lstrip("_") in FOREIGN[module])
        )
    }

    assert read
    assert read <= LISTED


def test_the_extension_is_named_by_its_real_path() -> None:
    module, _, name = activation.EXTENSION.rpartition(".")
    spec = importlib.util.find_spec(module)

    assert spec is not None
    assert spec.origin is not None
    assert f"class {name}:" in Path(spec.origin).read_text()
