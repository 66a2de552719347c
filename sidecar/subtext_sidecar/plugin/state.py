"""Whether capture is on, and if not, why: what the heartbeat says and operators see."""

import logging
import threading
import time
from collections import Counter
from typing import Final

from subtext_sidecar.plugin.vllm.activation import LOGGER
from subtext_sidecar.plugin.vllm.refusal import Refusal

_LOG_EVERY_SECONDS: Final = 60.0
_DETAIL_CHARACTERS: Final = 300


class CaptureState:
    """On until refused or failed, and then off for good. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log = logging.getLogger(LOGGER)
        self._logged_at = float("-inf")
        self.reason = "starting"
        self.detail = ""
        self.errors: Counter[str] = Counter()
        self.error_times: dict[str, float] = {}  # of the last error, in Unix seconds

    @property
    def enabled(self) -> bool:
        """Tell whether rows are being captured."""
        return self.reason == "ok"

    def start(self) -> None:
        """Say that capture works."""
        with self._lock:
            if self.reason == "starting":
                self.reason = "ok"

    def refuse(self, refusal: Refusal) -> None:
        """Keep capture off, because this engine cannot be captured."""
        with self._lock:
            self.reason, self.detail = refusal.reason, refusal.detail[:_DETAIL_CHARACTERS]
        self._log.warning("subtext: capture is off (%s): %s", refusal.reason, refusal.detail)

    def fail(self, hook: str, error: Exception) -> None:
        """Turn capture off after an error in ``hook``; logged at most once a minute."""
        now = time.monotonic()
        with self._lock:
            self.errors[hook] += 1
            self.error_times[hook] = time.time()
            self.reason = f"error_{hook}"
            self.detail = f"{type(error).__name__}: {error}"[:_DETAIL_CHARACTERS]
            silent = now - self._logged_at < _LOG_EVERY_SECONDS
            self._logged_at = self._logged_at if silent else now
        if not silent:
            self._log.error(
                "subtext: capture is off after an error in %s; serving goes on", hook, exc_info=error
            )
