"""Configurations as answered: what was in force, who said so, and until when that was heard."""

import datetime as dt
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.vocabulary import ConfigurationKind
from service.api.vocabulary import Hop as HopName
from service.store.configuration import read
from service.store.configuration.tables import ConfigurationPeriod
from subtext_sidecar.contract.configuration import Kind
from subtext_sidecar.contract.counters import Hop

_DIGEST: Final = "SHA-256 of the content: JSON with sorted keys, no spaces, in UTF-8."
_EXAMPLE: Final = "9d1c6a0f4b7e2d35889a1b0c6f3e5d7294ab60c1e8f7d2b3a4958671c0d9e8f7"
NOT_KNOWN: Final = "Nothing is known: no process had reported one within the five minutes before."


class VersionSource(Answer):
    """One process that ran a version."""

    source: str = Field(description="One start of one process, as in coverage.", examples=["worker-5b1e"])
    hop: HopName = Field(examples=["worker"])
    layer: int | None = Field(description="Null where it is of all layers.", examples=[23])
    since: dt.datetime = Field(description="Its first report, UTC by the database's clock.")
    seen_until: dt.datetime = Field(description="Its last report, UTC.")
    ended_at: dt.datetime | None = Field(
        description="When it stopped, or ran another version; null while nobody said so."
    )
    is_confirmed: bool = Field(
        description="It reported the version at `at` or later. False: its last report is up to five minutes"
        " older, so it may have ended before."
    )


class ConfigurationVersion(Answer):
    """One version, whole."""

    kind: ConfigurationKind = Field(examples=["worker"])
    digest: str = Field(description=_DIGEST, examples=[_EXAMPLE])
    content: dict[str, Any] | None = Field(
        description="Null of a version that rows name and whose content nobody reported, or that is longer"
        " than 256 KiB."
    )
    first_named_at: dt.datetime = Field(description="When the store met it first, UTC.")

    @classmethod
    def of(cls, view: read.VersionView) -> "ConfigurationVersion":
        """Return the answer for a version."""
        return cls(**_fields(view))


class VersionInForce(ConfigurationVersion):
    """A version with the processes that ran it."""

    since: dt.datetime = Field(description="The earliest first report of these processes, UTC.")
    seen_until: dt.datetime = Field(description="The latest last report of these processes, UTC.")
    sources: list[VersionSource]


class KindInForce(Answer):
    """What was in force of one kind."""

    kind: ConfigurationKind = Field(examples=["worker"])
    known: bool
    note: str | None = Field(description="What is not known; null when all is.")
    versions: list[VersionInForce] = Field(
        description="All that some process ran: several during a rolling update, none when none is known."
    )


class ModelConfiguration(Answer):
    """What was in force for one model."""

    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    kinds: list[KindInForce] = Field(description="Every kind, also those of which nothing is known.")


class ConfigurationInForce(Answer):
    """What was in force at a time."""

    at: dt.datetime = Field(description="UTC, by the database's clock.")
    models: list[ModelConfiguration]


class ConfigurationVersionList(Answer):
    """The versions of one digest: one, unless two kinds have the same content."""

    items: list[ConfigurationVersion]


class ConfigurationChange(Answer):
    """A process began to run a version, or ended."""

    id: uuid.UUID
    at: dt.datetime = Field(description="UTC by the database's clock; the listing's order.")
    event: Literal["began", "ended", "lost"] = Field(
        description="`lost`: it stopped reporting, and nobody said that it ended; `at` is its last report.",
        examples=["began"],
    )
    changes_versions: bool = Field(
        description="The version came to the model, or left it: no other process ran it as well."
    )
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    kind: ConfigurationKind = Field(examples=["worker"])
    digest: str = Field(description=_DIGEST, examples=[_EXAMPLE])
    layer: int | None = Field(description="Null where it is of all layers.", examples=[23])
    source: str = Field(description="One start of one process.", examples=["worker-5b1e"])
    hop: HopName = Field(examples=["worker"])


class ConfigurationChangePage(Answer):
    """One page of changes, newest first."""

    items: list[ConfigurationChange]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def in_force(at: dt.datetime, models: Sequence[str], found: Iterable[read.InForce]) -> ConfigurationInForce:
    """Return the answer for these models, each with all kinds."""
    of: dict[tuple[str, str], list[read.InForce]] = {}
    for one in found:
        of.setdefault((one.period.model, one.period.kind), []).append(one)
    return ConfigurationInForce(
        at=at,
        models=[
            ModelConfiguration(
                model=model, kinds=[_kind(kind, of.get((model, kind), ()), at) for kind in Kind]
            )
            for model in models
        ],
    )


def change(one: read.Change) -> ConfigurationChange:
    """Return the answer for one event."""
    period = one.period
    return ConfigurationChange(
        id=one.id,
        at=one.at,
        event=one.event,
        changes_versions=one.changes_versions,
        model=period.model,
        kind=Kind(period.kind),
        digest=one.version.digest,
        layer=period.layer,
        source=period.source,
        hop=Hop(period.hop),
    )


def _kind(kind: Kind, found: Sequence[read.InForce], at: dt.datetime) -> KindInForce:
    by_version = sorted(found, key=lambda one: one.view.version.id)
    versions = [
        _version(list(group), at)
        for _, group in itertools.groupby(by_version, key=lambda one: one.view.version.id)
    ]
    return KindInForce(
        kind=kind,
        known=bool(versions),
        note=None if versions else NOT_KNOWN,
        versions=sorted(versions, key=lambda version: (version.since, version.digest)),
    )


def _version(group: Sequence[read.InForce], at: dt.datetime) -> VersionInForce:
    periods = [one.period for one in group]
    return VersionInForce(
        **_fields(group[0].view),
        since=min(period.began_at for period in periods),
        seen_until=max(period.last_seen_at for period in periods),
        sources=[_source(period, at) for period in periods],
    )


def _fields(view: read.VersionView) -> Mapping[str, Any]:
    return {
        "kind": view.version.kind,
        "digest": view.version.digest,
        "content": view.content,
        "first_named_at": view.version.created_at,
    }


def _source(period: ConfigurationPeriod, at: dt.datetime) -> VersionSource:
    return VersionSource(
        source=period.source,
        hop=Hop(period.hop),
        layer=period.layer,
        since=period.began_at,
        seen_until=period.last_seen_at,
        ended_at=period.ended_at,
        is_confirmed=period.last_seen_at >= at or period.ended_at is not None,
    )
