"""What plugins and this sidecar run, and when that is told: at once where it changed, else each minute.

What a plugin that fell silent ran is not told any more: nobody knows whether it runs it still.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import asdict

from subtext_sidecar.anomaly.reference import described
from subtext_sidecar.anomaly.score import Reference
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop, Stratum
from subtext_sidecar.contract.record import VERSION, ConfigurationReport, CoverageCount
from subtext_sidecar.local.capture_view import SILENT_AFTER_SECONDS
from subtext_sidecar.local.ledger import Audited
from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.local.wire import CaptureStatus

REPORT_SECONDS: Final = 60.0
_NO_MINUTE: Final = 0  # such a message counts nothing


class _Heard(NamedTuple):
    status: CaptureStatus
    at: float


class _Told(NamedTuple):
    digests: tuple[str, ...]
    at: float


class ConfigurationNews:
    """Takes note of what is run; ``now`` is in monotonic seconds."""

    def __init__(self, source: str) -> None:
        """``source`` is the sidecar's own."""
        self._source = source
        self._heard: dict[str, _Heard] = {}  # by the plugin's source
        self._policy: ScreenPolicy | None = None
        self._reference: Reference | None = None
        self._own: tuple[ConfigurationReport, ...] = ()
        self._told: dict[tuple[str, str, str], _Told] = {}  # by source, model and tenant

    def hear(self, status: CaptureStatus, now: float) -> None:
        """Take a plugin's heartbeat."""
        self._heard[status.source] = _Heard(status, now)

    def screen(self, policy: ScreenPolicy, reference: Reference | None) -> None:
        """Take what this sidecar screens by."""
        if policy is self._policy and reference is self._reference:
            return
        made = [configuration(Kind.SCREEN_POLICY, asdict(policy))]
        if reference is not None:
            made.append(configuration(Kind.ANOMALY_REFERENCE, described(reference)))
        self._policy, self._reference = policy, reference
        self._own = tuple(
            ConfigurationReport(kind=str(one.kind), digest=one.digest, content=one.content) for one in made
        )

    def due(self, now: float) -> list[CoverageCount]:
        """Return the messages that are to be told now: one for each source, model and tenant."""
        self._heard = {
            source: heard for source, heard in self._heard.items() if now - heard.at <= SILENT_AFTER_SECONDS
        }
        alive = [heard.status for heard in self._heard.values()]
        messages = [
            _message(one.source, Hop.PLUGIN, Audited(one.model, one.tenant), one.configurations)
            for one in alive
        ]
        audited = sorted({Audited(one.model, one.tenant) for one in alive})
        messages += [_message(self._source, Hop.SIDECAR, one, self._own) for one in audited]
        keys = {_key(one) for one in messages}
        self._told = {key: told for key, told in self._told.items() if key in keys}
        return [one for one in messages if one.configurations and self._is_due(one, now)]

    def told(self, messages: Sequence[CoverageCount], now: float) -> None:
        """Note that these were told."""
        for one in messages:
            self._told[_key(one)] = _Told(_digests(one), now)

    def _is_due(self, message: CoverageCount, now: float) -> bool:
        told = self._told.get(_key(message))
        return told is None or told.digests != _digests(message) or now - told.at >= REPORT_SECONDS


def _key(message: CoverageCount) -> tuple[str, str, str]:
    return message.source, message.model, message.tenant


def _message(
    source: str, hop: Hop, audited: Audited, reports: tuple[ConfigurationReport, ...]
) -> CoverageCount:
    return CoverageCount(
        v=VERSION,
        source=source,
        hop=hop,
        model=audited.model,
        tenant=audited.tenant,
        stratum=Stratum.UNIFORM,
        minute=_NO_MINUTE,
        counts={},
        configurations=reports,
    )


def _digests(message: CoverageCount) -> tuple[str, ...]:
    return tuple(report.digest for report in message.configurations)
