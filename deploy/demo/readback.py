"""A REST client of the demo's own pipeline, its only source of results."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from subtext_sidecar.contract.counters import Hop, PluginCounter

_PAGE_ROWS = 100
_TIMEOUT_SECONDS = 15.0


class ReadbackError(RuntimeError):
    """REST answered with an error status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One explanation from REST."""

    id: str
    request_id: str
    position: int
    token: str
    text: str
    fve: float
    fve_beyond_token: float | None  # None when the token's mean is unknown
    is_verified: bool
    calibration_n: int  # readings behind the calibration; 0 for an uncalibrated decoder
    captured_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums of the pipeline's counters over a time range."""

    requests_seen: int = 0
    samples: int = 0
    dropped: int = 0
    dead_lettered: int = 0

    def since(self, earlier: "Totals") -> "Totals":
        """Return the difference to ``earlier``."""
        return Totals(
            requests_seen=self.requests_seen - earlier.requests_seen,
            samples=self.samples - earlier.samples,
            dropped=self.dropped - earlier.dropped,
            dead_lettered=self.dead_lettered - earlier.dead_lettered,
        )


def flag_label(flag: Mapping[str, Any]) -> str:
    """Return a flag's concept, with a word when nothing is known about how often it is wrong."""
    return str(flag["concept"]) if flag["calibrated"] else f"{flag['concept']} (lead)"


class Readback:
    """A REST client; requests raise ReadbackError or an httpx.TransportError."""

    def __init__(self, base_url: str, api_key: str) -> None:
        """``base_url`` excludes /v1."""
        self._http = httpx.Client(
            base_url=f"{base_url}/v1",
            headers={"Authorization": f"Bearer {api_key}", "Subtext-Purpose": "debugging; make demo"},
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,  # a proxy in the environment must not see the key
        )

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def is_authorized(self) -> bool:
        """Return whether the service accepts the key; a home of another database does not know it."""
        response = self._http.get("/models")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return False
        self._json(response)
        return True

    def readings(self, since: dt.datetime) -> list[Reading]:
        """Return every explanation captured after ``since``, newest first."""
        items = self._pages("/explanations", {"captured_after": since.isoformat()})
        return [_reading(item) for item in items]

    def flags(self, since: dt.datetime) -> dict[str, list[str]]:
        """Return the flagged concepts by request id; a lead's is labelled as one."""
        flags: dict[str, list[str]] = {}
        for item in self._pages("/flags", {"captured_after": since.isoformat()}):
            flags.setdefault(item["request_id"], []).append(flag_label(item))
        return flags

    def request_summary(self, request_id: str) -> str | None:
        """Return the summary of a request's readings; None when no reading names a theme."""
        response = self._http.get(f"/requests/{quote(request_id, safe='')}")
        if response.is_client_error:
            return None  # visitors choose their ids, and some are not valid in a path
        captures = self._json(response)["captures"]  # newest first
        summary = captures[0]["summary"]
        return None if summary is None else str(summary["text"])

    def totals(self, since: dt.datetime) -> Totals:
        """Return coverage from the minute of ``since`` on, over all models."""
        report = self._json(self._http.get("/coverage", params={"from": since.isoformat()}))
        counters: Counter[str] = Counter()
        for count in report["counts"]:
            if count["hop"] == Hop.PLUGIN:
                counters.update(count["counters"])
        return Totals(
            requests_seen=counters[PluginCounter.REQUESTS_SEEN],
            samples=counters[PluginCounter.ROWS_SAMPLED],
            dropped=sum(model["rows_dropped"] for model in report["models"]),
            dead_lettered=sum(model["rows_dead_lettered"] for model in report["models"]),
        )

    def _pages(self, path: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        query = {**params, "limit": str(_PAGE_ROWS)}
        while True:
            page = self._json(self._http.get(path, params=query))
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    @staticmethod
    def _json(response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise ReadbackError(
                f"{response.request.url.path} answered {response.status_code}: {response.text[:300]}"
            )
        body: dict[str, Any] = response.json()
        return body


def _reading(item: Mapping[str, Any]) -> Reading:
    return Reading(
        id=item["id"],
        request_id=item["request_id"],
        position=item["position"],
        token=item["token_text"] or "",
        text=item["text"] or "",
        fve=item["fidelity"]["fve"],
        fve_beyond_token=item["fidelity"]["fve_beyond_token"],
        is_verified=item["fidelity"]["verified"],
        calibration_n=item["fidelity"]["calibration_n"],
        captured_at=dt.datetime.fromisoformat(item["captured_at"]),
    )
