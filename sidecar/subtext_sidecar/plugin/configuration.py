"""What an engine runs, as versions of configurations: its model, how it captures, which policy it follows.

Worked out where something changes, never in a step. No secret is part of it, and no place of a file.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import asdict

from subtext_sidecar.contract.configuration import Configuration, Kind, configuration
from subtext_sidecar.contract.record import ConfigurationReport
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.settings import CaptureSettings


class Followed(NamedTuple):
    """What an engine runs as long as nothing changes."""

    digest: str
    """Of the plugin's version, which names the model's and the policy's: what a request's rows name."""
    reports: tuple[ConfigurationReport, ...]


def followed(
    model: Configuration,
    settings: CaptureSettings,
    versions: Mapping[str, str | None],
    policy: CapturePolicy | None,
    engines: int,
) -> Followed:
    """Return what an engine runs that follows this policy; None: it captures nothing.

    ``versions`` are those of the programs, by name; ``engines`` share the policy's budget.
    """
    parts = [model]
    if policy is not None:
        parts.append(configuration(Kind.CAPTURE_POLICY, asdict(policy)))
    content: dict[str, Any] = {
        "versions": dict(versions),
        "model": model.digest,
        "capture_policy": None if policy is None else parts[-1].digest,
        "layer": settings.layer,
        "split": settings.split,
        "engines": engines,
        "queue_rows": settings.queue_rows,
        "subjects": settings.subjects,
    }
    parts.append(configuration(Kind.PLUGIN, content))
    return Followed(
        parts[-1].digest,
        tuple(
            ConfigurationReport(
                kind=str(one.kind),
                digest=one.digest,
                content=one.content,
                # A revision and a policy are of the whole model.
                layer=settings.layer if one.kind is Kind.PLUGIN else None,
            )
            for one in parts
        ),
    )
