"""Send the demo's prompts through the official OpenAI client."""

import itertools
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import openai

from deploy.demo.prompts import Prompt
from deploy.local.model import MODEL_NAME

_MAX_TOKENS = 48
_REQUEST_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPlan:
    """Request rates: an initial burst that fills the table quickly, then a steady trickle."""

    concurrency: int = 5
    burst_requests: int = 10
    interval_seconds: float = 6.0  # between requests of all senders together, after the burst


class Traffic:
    """Sends prompts from several threads until stopped, and maps request ids to prompts."""

    def __init__(self, base_url: str, prompts: Sequence[Prompt], plan: TrafficPlan) -> None:
        """``base_url`` is the OpenAI endpoint, ending in /v1."""
        # Retries would hide failed requests from the failure count.
        self._client = openai.OpenAI(
            base_url=base_url, api_key="none", max_retries=0, timeout=_REQUEST_TIMEOUT_SECONDS
        )
        self._plan = plan
        self._prompts: Iterator[Prompt] = itertools.cycle(prompts)
        self._run_id = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._started_count = 0
        self._sent: dict[str, str] = {}
        self._failures: list[str] = []
        self._succeeded_count = 0
        self._threads = [
            threading.Thread(target=self._send_until_stopped, name=f"traffic-{number}", daemon=True)
            for number in range(plan.concurrency)
        ]

    def start(self) -> None:
        """Start the sending threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no new request; pending ones end with the server."""
        self._stop.set()
        self._client.close()

    def prompt_of(self, request_id: str) -> str | None:
        """Return the prompt of the demo's request, or None for a visitor's request."""
        with self._lock:
            return self._sent.get(request_id)

    def succeeded(self) -> int:
        """Return the number of answered requests."""
        with self._lock:
            return self._succeeded_count

    def failures(self) -> list[str]:
        """Return one error message per failed request."""
        with self._lock:
            return list(self._failures)

    def _send_until_stopped(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = self._started_count
                self._started_count += 1
                prompt = next(self._prompts)
            is_burst = number < self._plan.burst_requests
            pause = 0.0 if is_burst else self._plan.interval_seconds * self._plan.concurrency
            if not self._stop.wait(pause):
                self._send(f"demo-{self._run_id}-{number}", prompt, seed=number)

    def _send(self, request_id: str, prompt: Prompt, seed: int) -> None:
        with self._lock:
            self._sent[request_id] = prompt.text
        try:
            self._client.chat.completions.create(
                model=MODEL_NAME,
                messages=[{"role": "user", "content": prompt.text}],
                max_tokens=_MAX_TOKENS,
                temperature=0.7,
                seed=seed,
                extra_headers={"X-Request-Id": request_id},
            )
        except openai.OpenAIError as error:
            if not self._stop.is_set():
                with self._lock:
                    self._failures.append(f"{request_id}: {type(error).__name__}: {error}")
            return
        with self._lock:
            self._succeeded_count += 1
