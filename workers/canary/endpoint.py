"""The audited server, asked as any client asks it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import httpx

from subtext_sidecar.contract.canary import ARGUMENT

ANSWER_SECONDS: Final = 120.0


class EndpointError(RuntimeError):
    """The server did not answer the canary; the message says how, and holds no token."""


class Endpoint(Protocol):
    """Where canaries are sent."""

    def ask(self, prompt: Sequence[int], token: str, nonce: str) -> None:
        """Have the prompt, as token ids, answered, or raise EndpointError."""


class OpenAiEndpoint:
    """One completion at a time, and a short one: canaries must not be felt by serving.

    It is of token ids, chat template included, so that what the server reads is what the token is bound to.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        answer_tokens: int,
        api_key: str | None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._url = f"{url.rstrip('/')}/completions"
        self._model = model
        self._answer_tokens = answer_tokens
        self._answer_seconds = answer_seconds

    def ask(self, prompt: Sequence[int], token: str, nonce: str) -> None:
        """Have the prompt, as token ids, answered, or raise EndpointError."""
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": self._answer_tokens,
            "temperature": 0.0,
            "vllm_xargs": {ARGUMENT: token},
            # What comes from the prefix cache has no activation, and canaries are always the same.
            "cache_salt": nonce,
        }
        try:
            status = asyncio.run(self._post(body))
        except TimeoutError as error:
            raise EndpointError(f"no answer within {self._answer_seconds:g} s") from error
        except httpx.HTTPError as error:
            raise EndpointError(type(error).__name__) from error
        if status >= httpx.codes.BAD_REQUEST:
            raise EndpointError(f"HTTP {status}")

    async def _post(self, body: dict[str, Any]) -> int:
        # httpx limits each read, so that a server which trickles bytes would hold the runner for ever.
        async with (
            asyncio.timeout(self._answer_seconds),
            httpx.AsyncClient(timeout=None, headers=self._headers, trust_env=False) as client,  # noqa: S113
        ):
            return (await client.post(self._url, json=body)).status_code
