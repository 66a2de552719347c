"""Where two engines that serve one request hand it over, as a router does: through a folder."""

import json
import time
from pathlib import Path
from typing import Any, Final

from subtext_sidecar.plugin.sampling.split import EPOCH_SECONDS
from tests.support.waiting import wait_until

TRANSFER: Final = "kv_transfer_params"
_SECONDS: Final = 400.0
_ROOM_SECONDS: Final = (
    90  # both halves of a request must fall into one epoch, in which their draw is the same
)


class Meeting:
    """The folder, shared by one engine that computes prompts and one that writes answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wait_for_the_other(self) -> None:
        """Wait until the decode engine stands, and for a new epoch where one is about to end."""
        self._wait("ready")
        left = EPOCH_SECONDS - time.time() % EPOCH_SECONDS
        if left < _ROOM_SECONDS:
            time.sleep(left)

    def hand_over(self, transfers: dict[str, Any]) -> None:
        """Say what vLLM answered of each request, and keep the engine until the other is done."""
        # Blocks may be tuples, or what only NIXL knows.
        self._write("transfers", json.dumps(transfers, default=list))
        self._wait("done")

    def take_over(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let the decode engine wait for the prompts; return its requests, each with what belongs to it."""
        self._write("ready", "")
        self._wait("transfers")
        transfers = json.loads((self._folder / "transfers").read_text())
        return [
            request
            if request["id"] not in transfers
            else request
            | {"sampling": request["sampling"] | {"extra_args": {TRANSFER: transfers[request["id"]]}}}
            for request in requests
        ]

    def close(self) -> None:
        """Let the prefill engine end."""
        self._write("done", "")

    def _wait(self, name: str) -> None:
        wait_until(f"{name} in {self._folder}", (self._folder / name).exists, _SECONDS)

    def _write(self, name: str, content: str) -> None:
        written = self._folder / f"{name}.part"
        written.write_text(content)
        written.rename(self._folder / name)
