"""The audited server, asked as any client asks it."""

from typing import Any, Final, Protocol

import httpx

from subtext_sidecar.contract.canary import ARGUMENT

_TIMEOUT_SECONDS: Final = 120.0


class EndpointError(RuntimeError):
    """The server did not answer the canary; the message says how, and holds no token."""


class Endpoint(Protocol):
    """Where canaries are sent."""

    def ask(self, prompt: str, token: str, nonce: str) -> None:
        """Have the prompt answered, or raise EndpointError."""


class OpenAiEndpoint:
    """One chat completion at a time, and a short one: canaries must not be felt by serving."""

    def __init__(self, url: str, model: str, *, answer_tokens: int, api_key: str | None) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, headers=headers, trust_env=False)
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._answer_tokens = answer_tokens

    def ask(self, prompt: str, token: str, nonce: str) -> None:
        """Have the prompt answered, or raise EndpointError."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._answer_tokens,
            "temperature": 0.0,
            "vllm_xargs": {ARGUMENT: token},
            # What comes from the prefix cache has no activation, and canaries are always the same.
            "cache_salt": nonce,
        }
        try:
            answer = self._client.post(self._url, json=body)
        except httpx.HTTPError as error:
            raise EndpointError(type(error).__name__) from error
        if answer.is_error:
            raise EndpointError(f"HTTP {answer.status_code}")

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
