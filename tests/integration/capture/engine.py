"""Run one in-process vLLM engine over a job: ``python -m tests.integration.capture.engine JOB RESULT``.

A process of its own, because vLLM loads general plugins once in a process and captures or not for
the configuration that it meets first.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(job_path: str, result_path: str) -> None:
    """Answer the job's prompts and write every request's tokens."""
    from vllm import LLM, SamplingParams

    job: dict[str, Any] = json.loads(Path(job_path).read_text())
    llm = LLM(**job["engine"])
    prompts = [{"prompt_token_ids": token_ids} for token_ids in job["prompts"]]
    params = SamplingParams(temperature=0.0, **job.get("sampling", {}))
    results: list[dict[str, Any]] = []
    for _ in range(job.get("rounds", 1)):
        outputs = llm.generate(prompts, params, use_tqdm=False)
        results.extend(
            {
                "request_id": output.request_id,
                "prompt_token_ids": list(output.prompt_token_ids or []),
                "output_token_ids": list(output.outputs[0].token_ids),
            }
            for output in outputs
        )
    Path(result_path).write_text(json.dumps(results))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
