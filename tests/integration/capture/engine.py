"""Run in-process vLLM engines over jobs: ``python -m tests.integration.capture.engine JOBS RESULTS``.

A process of its own, because vLLM loads general plugins once in a process and captures or not for
the configuration that it meets first. Several jobs run one after the other.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any


def main(jobs_path: str, results_path: str) -> None:
    """Answer each job's prompts; write every request's tokens, and vLLM's attributes if asked for."""
    jobs: list[dict[str, Any]] = json.loads(Path(jobs_path).read_text())
    results = [run(job) for job in jobs]
    Path(results_path).write_text(json.dumps(results))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one engine to its end."""
    from vllm import LLM, SamplingParams

    llm = LLM(**job["engine"])
    prompts = [{"prompt_token_ids": token_ids} for token_ids in job["prompts"]]
    params = SamplingParams(temperature=0.0, **job["sampling"])
    outputs = [
        output for _ in range(job["rounds"]) for output in llm.generate(prompts, params, use_tqdm=False)
    ]
    result = {
        "texts": {
            output.request_id: [*(output.prompt_token_ids or []), *output.outputs[0].token_ids]
            for output in outputs
        },
        "preemptions": preemptions(llm) if job["engine"].get("disable_log_stats") is False else 0,
        "attributes": attributes() if job["attributes"] else {},
        "has_extension": "subtext_sidecar.plugin.extension" in sys.modules,
    }
    llm.llm_engine.engine_core.shutdown()
    return result


def preemptions(llm: Any) -> int:
    """Return how often the scheduler preempted a request."""
    return sum(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def attributes() -> dict[str, str]:
    """Describe every attribute of every loaded vLLM module, and of the classes that it defines."""
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
    """Tell what a value is, the same in every process: code by where it stands, data by its type.

    Nothing is unwrapped, so that a wrapper shows as itself, and lazy objects are not touched.
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
    main(*sys.argv[1:])
