"""The whole pipeline on real parts, with the means to break one of them and mend it again."""

import contextlib
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import launch
from deploy.local.model import MODEL_NAME
from deploy.local.ports import HOST
from deploy.local.process import DemoProcess, ProcessSpec
from deploy.local.stack import answers
from tests.support.waiting import wait_until

SERVED_MODEL = MODEL_NAME
START_SECONDS = 560.0
ALL_SCOPES = ("explanations:read", "explanations:read_text", "flags:read", "coverage:read")


def pause_longer() -> None:
    """Leave the processor to the pipeline: two cores run all of it."""
    time.sleep(0.2)


wait_for = partial(wait_until, meanwhile=pause_longer)


class Pipeline:
    """Started processes by name, and a client for each of their faces."""

    def __init__(self, plan: launch.LaunchPlan, logs_dir: Path) -> None:
        self.plan = plan
        self.api_key = ""
        self._logs_dir = logs_dir
        self._running: dict[str, tuple[ProcessSpec, DemoProcess]] = {}
        self.openai_url = f"http://{HOST}:{plan.ports.openai}/v1"
        self.api_url = f"http://{HOST}:{plan.ports.api}"

    # -- processes

    def start(self, spec: ProcessSpec) -> None:
        self._running[spec.name] = (spec, DemoProcess(spec, self._logs_dir / f"{spec.name}.log"))

    def kill(self, name: str) -> ProcessSpec:
        """SIGKILL the process: the kernel ends the command together with its tether."""
        spec, process = self._running.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait_stopped()
        return spec

    def stop_all(self) -> None:
        for stores in (False, True):
            group = [process for spec, process in self._running.values() if spec.is_store is stores]
            for process in group:
                process.ask_to_stop()
            for process in group:
                process.wait_stopped()

    def tails(self) -> str:
        return "\n".join(f"== {name}\n{process.tail()}" for name, (_, process) in self._running.items())

    def check(self) -> None:
        for _, process in self._running.values():
            process.check()

    def wait_ready(self, port: int, path: str, seconds: float) -> None:
        def look() -> None:
            self.check()
            pause_longer()

        wait_until(
            lambda: f"{port}{path} is ready\n{self.tails()}",
            lambda: answers(f"http://{HOST}:{port}{path}"),
            seconds,
            meanwhile=look,
        )

    # -- faces

    def chat(self, prompt: str, *, request_id: str | None = None, max_tokens: int = 24) -> str:
        """Send one chat request; return its id. Raises when it does not succeed."""
        request_id = request_id or f"test-{uuid.uuid4().hex}"
        client = openai.OpenAI(base_url=self.openai_url, api_key="none", max_retries=0, timeout=120)
        with client:
            client.chat.completions.create(
                model=SERVED_MODEL,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                temperature=0.0,
                extra_headers={"X-Request-Id": request_id},
            )
        return request_id

    def chat_many(self, count: int, *, concurrency: int = 8) -> list[str]:
        """Send ``count`` different short requests; return the ids of those that succeeded.

        Short, because two cores decode a few rows a second and later tests wait behind them.
        """
        prompts = [f"Name {number + 2} things that one finds in a kitchen." for number in range(count)]
        succeeded: list[str] = []
        with ThreadPoolExecutor(concurrency) as pool:
            for future in [pool.submit(self.chat, prompt, max_tokens=6) for prompt in prompts]:
                with contextlib.suppress(openai.OpenAIError):
                    succeeded.append(future.result())
        return succeeded

    def get(self, path: str, **params: str) -> Any:
        """GET a REST path with the pipeline's key; the JSON of a 200 answer."""
        response = httpx.get(
            f"{self.api_url}{path}",
            params=params,
            headers={"Authorization": f"Bearer {self.api_key}", "Subtext-Purpose": "debugging"},
            timeout=20,
            trust_env=False,
        )
        assert response.status_code == httpx.codes.OK, response.text
        return response.json()

    def explanations_of(self, request_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/v1/explanations", request=request_id, limit="100")["items"]
        return items

    def scrape(self, port: int) -> str:
        return httpx.get(f"http://{HOST}:{port}/metrics", timeout=20, trust_env=False).text

    def metric(self, port: int, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels; 0 when there is none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.scrape(port))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
