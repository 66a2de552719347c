"""Run in-process vLLM engines over jobs: ``python -m tests.support.vllm.engine DESCRIPTOR``.

vLLM loads general plugins once per process, and its first configuration decides whether it captures. Each
job therefore runs in its own child process, forked after the imports, which are slow and happen once for
all lists of jobs that are asked for at the pipe DESCRIPTOR (see ``tests.support.vllm.importer``). Jobs of
a list run one after the other, but for the two halves of a split, which run at once; job N runs in the
directory N and writes ``result.json`` there.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing.process
import os
import sys
import traceback
import types
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.vllm.meeting import TRANSFER, Meeting
from tests.support.vllm.session import run_session


def main(descriptor: str) -> int:
    """Import vLLM, then run each list of jobs that is asked for in a child process, until nobody asks."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pretend_triton_compiles_for_the_cpu()
    from vllm.platforms import current_platform

    if current_platform.is_cpu():  # elsewhere an import might open the device, which no fork survives
        importlib.import_module("vllm.v1.engine.llm_engine")
        importlib.import_module("vllm.v1.worker.gpu_model_runner")  # which the CPU's is made of
    gc.freeze()  # so that no child looks through a million objects of modules again and again
    channel = Connection(int(descriptor))
    with contextlib.suppress(EOFError):
        while True:
            child = _start_list(channel, **json.loads(channel.recv_bytes()))
            channel.send_bytes(str(child).encode())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            channel.send_bytes(str(status).encode())
    return 0


def _start_list(channel: "Connection[bytes, bytes]", folder: str, env: dict[str, str | None]) -> int:
    """Fork a process that runs the jobs of a folder with changes of the environment; return its id."""
    child = os.fork()
    if child == 0:
        channel.close()
        # Its own group, so that it can be ended together with its engines, and its own log.
        os.setsid()
        log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        os.environ |= {name: value for name, value in env.items() if value is not None}
        for name in env.keys() & os.environ.keys():
            if env[name] is None:
                del os.environ[name]
        os.chdir(folder)
        multiprocessing.process.ORIGINAL_DIR = folder  # type: ignore[attr-defined]  # where spawned ranks begin
        failed = _run_list()
        sys.stdout.flush()
        os._exit(failed)
    return child


def _run_list() -> int:
    """Run each job in a child process; return the number of failed jobs."""
    jobs: list[dict[str, Any]] = json.loads(Path("jobs.json").read_text())
    children, failed = [], 0
    for number, job in enumerate(jobs):
        children.append(_start(number, job))
        if job["half"] != "prefill":
            failed += sum(_has_failed(child) for child in children)
            children = []
    return failed


def pretend_triton_compiles_for_the_cpu() -> None:
    """Make vLLM use Triton, whose kernels run interpreted and need no compiler for the CPU."""
    driver = types.SimpleNamespace(is_active=lambda: True)
    importlib.import_module("triton.backends").backends["cpu"] = types.SimpleNamespace(driver=driver)


def _start(number: int, job: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.environ |= job["env"]
            os.chdir(str(number))
            Path("result.json").write_text(json.dumps(run(job)))
            status = 0
        except Exception:  # noqa: BLE001  # boundary of the job: logged, and shown by the exit status
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def _has_failed(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one engine until all requests have ended."""
    from vllm import EngineArgs, PoolingParams, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

    config = EngineArgs(**job["engine"]).create_engine_config()
    if job["asynchronous"]:
        # vLLM disables this on a CPU, where it has no benefit but works.
        config.scheduler_config.async_scheduling = True
    engine = LLMEngine.from_vllm_config(config)
    requests, meeting = job["requests"], Meeting(Path(".."))
    if job["half"] == "prefill":
        meeting.wait_for_the_other()
    elif job["half"] == "decode":
        requests = meeting.take_over(requests)
    if job["engine"].get("runner") == "pooling":
        params = [PoolingParams(task="embed") for _ in requests]
    else:
        params = [
            SamplingParams(temperature=0.0, detokenize=False, **request["sampling"]) for request in requests
        ]
    result = {
        **serve(engine, requests, params),
        "preemptions": preemptions(engine) if job["engine"].get("disable_log_stats") is False else 0,
        "attributes": attributes() if job["attributes"] else {},
        "has_extension": "subtext_sidecar.plugin.vllm.extension" in sys.modules,
        "config_hash": config.compute_hash(),
    }
    for session in job["sessions"]:
        result["texts"][session["id"]] = run_session(engine, session)
    if job["half"] == "prefill":
        meeting.hand_over(result["transfers"])
    elif job["half"] == "decode":
        meeting.close()
    engine.engine_core.shutdown()
    return result


def serve(engine: Any, requests: list[dict[str, Any]], params: list[Any]) -> dict[str, Any]:
    """Serve the requests, given in order of arrival, each added before its step and possibly aborted.

    Returns every request's tokens (including aborted ones), the aborted ids, the number of answered
    requests, the largest number that ran concurrently, and what another engine goes on with.
    """
    scheduler = getattr(getattr(engine.engine_core, "engine_core", None), "scheduler", None)
    texts = {request["id"]: request["prompt"] for request in requests}
    waiting = list(zip(requests, params, strict=True))
    live: dict[str, dict[str, Any]] = {}
    aborted: list[str] = []
    transfers: dict[str, Any] = {}
    step = concurrent = answered = 0
    while waiting or engine.has_unfinished_requests():
        while waiting and waiting[0][0]["arrives"] <= step:
            request, chosen = waiting.pop(0)
            live[request["id"]] = request
            engine.add_request(request["id"], prompt_of(request), chosen)
        for output in engine.step():
            # A pooling model's output is a vector.
            generated = list(output.outputs[0].token_ids) if isinstance(output.outputs, list) else []
            texts[output.request_id] = [*live[output.request_id]["prompt"], *generated]
            answered += output.finished
            if transfer := getattr(output, TRANSFER, None):
                transfers[output.request_id] = transfer
            stop_at = live[output.request_id]["abort_after"]
            if stop_at is not None and len(generated) >= stop_at and not output.finished:
                engine.abort_request([output.request_id])
                aborted.append(output.request_id)
        concurrent = max(concurrent, len(scheduler.running) if scheduler is not None else 0)
        step += 1
    return {
        "texts": texts,
        "aborted": aborted,
        "concurrent": concurrent,
        "answered": answered,
        "transfers": transfers,
    }


def prompt_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the prompt as vLLM takes it."""
    import torch

    if width := request["embedded_width"]:
        return {"prompt_embeds": torch.zeros((len(request["prompt"]), width))}
    return {"prompt_token_ids": request["prompt"]}


def preemptions(engine: Any) -> int:
    """Return the number of preemptions."""
    return sum(metric.value for metric in engine.get_metrics() if metric.name == "vllm:num_preemptions")


def attributes() -> dict[str, str]:
    """Describe every attribute of every loaded vLLM module and of the classes defined there."""
    described: dict[str, str] = {}
    for name, module in sorted(sys.modules.items()):
        if name != "vllm" and not name.startswith("vllm."):
            continue
        for attribute, value in list(vars(module).items()):
            described[f"{name}.{attribute}"] = describe(value)
            if isinstance(value, type) and value.__module__ == name:
                for member, inner in list(vars(value).items()):
                    described[f"{name}.{attribute}.{member}"] = describe(inner)
    return described


def describe(value: object) -> str:
    """Describe a value in the same way in every process: code by its location, data by its type.

    Wrappers are not unwrapped, so they stay visible, and lazy objects are not evaluated.
    """
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        code = value.__code__
        return f"{code.co_filename}:{code.co_firstlineno}:{code.co_qualname}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}{[base.__qualname__ for base in value.__mro__]}"
    return type(value).__qualname__


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
