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
    """On until refused or failed, and after some errors on again. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log = logging.getLogger(LOGGER)
        self._logged_at = float("-inf")
        self.reason = "starting"
        self.detail = ""
        self.is_final = False  # nothing turns capture on any more
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
            self.is_final = True
        self._log.warning("subtext: capture is off (%s): %s", refusal.reason, refusal.detail)

    def resume(self) -> None:
        """Say that capture works again."""
        with self._lock:
            if self.is_final:
                return
            reason, self.reason, self.detail = self.reason, "ok", ""
        self._log.warning("subtext: capture is on again after %s", reason)

    def fail(self, hook: str, error: Exception, pause: float | None = None) -> bool:
        """Turn capture off after an error in ``hook``, for ``pause`` seconds, or without one for good.

        Return whether that is to be told by ``report``: what can be tried again is at most once a minute.
        """
        now = time.monotonic()
        with self._lock:
            self.errors[hook] += 1
            self.error_times[hook] = time.time()
            if not self.is_final:
                self.reason = f"error_{hook}"
                self.detail = _describe(error)[:_DETAIL_CHARACTERS]
            is_news = pause is None and not self.is_final
            self.is_final |= pause is None
            silent = now - self._logged_at < _LOG_EVERY_SECONDS and not is_news
            self._logged_at = self._logged_at if silent else now
        return not silent

    def report(self, hook: str, error: Exception, pause: float | None = None) -> None:
        """Log an error; that may take a while, so hold no lock."""
        self._log.error(
            "subtext: capture is off after an error in %s%s; serving goes on",
            hook,
            " until vLLM restarts" if pause is None else f" for {pause:.0f} s",
            exc_info=error,
        )


def _describe(error: Exception) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # an error may fail to tell of itself, and has turned capture off all the same
        return name
