"""What became of stream entries, counted under the tenant, model, stratum and minute that they came from.

The minute is that of the capture, as at plugin and sidecar, so that the hops' sums can be compared
minute by minute however long an entry waited. A worker keeps no counts of its own: it adds them in
the transaction that stores what they count.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from service.store.write.coverage import SourceCount
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import CounterName, Hop, Stratum
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, is_tenant_name
from workers.consumer.queue import Entry

STRATA: Final = frozenset(Stratum)
MAX_TEXT: Final = 256  # of what is an index key: PostgreSQL bounds those
_SECONDS_PER_MINUTE: Final = 60
_PLAUSIBLE_MINUTES: Final = 24 * 60


class Cell(NamedTuple):
    """What one set of counts is about."""

    model: str
    stratum: str  # one of STRATA
    minute: int  # Unix time // 60
    tenant: str = DEFAULT_TENANT


Counts = Counter[tuple[Cell, CounterName]]


class _Origin(msgspec.Struct):
    """The part of a header that tells where its counts belong."""

    model: str
    stratum: str
    captured_at: float
    tenant: Any = DEFAULT_TENANT


_origin_decoder = msgspec.msgpack.Decoder(_Origin)


def cell_of(entry: Entry, served_model: str) -> Cell:
    """Return where an entry counts, which may hold anything.

    A header that tells nothing, or nothing believable, leaves the served model, the default tenant, the
    stratum ``unknown`` and the minute in which the sidecar wrote the entry; the same rule there keeps both
    in step.
    """
    shipped = shipped_minute(entry)
    try:
        origin = _origin_decoder.decode(entry.fields.get(streams.FIELD_HEADER, b""))
        captured = int(origin.captured_at // _SECONDS_PER_MINUTE)
    except (msgspec.ValidationError, *record.UNDECODABLE, OverflowError, ValueError):
        return Cell(served_model, Stratum.UNKNOWN, shipped)
    is_storable = 0 < len(origin.model) <= MAX_TEXT and "\x00" not in origin.model
    return Cell(
        origin.model if is_storable else served_model,
        origin.stratum if origin.stratum in STRATA else Stratum.UNKNOWN,
        captured if abs(shipped - captured) <= _PLAUSIBLE_MINUTES else shipped,
        origin.tenant if is_tenant_name(origin.tenant) else DEFAULT_TENANT,
    )


def shipped_minute(entry: Entry) -> int:
    """Return the minute in which the entry was added to the stream, from its id."""
    return int(entry.id.split(b"-")[0]) // (1000 * _SECONDS_PER_MINUTE)


def tally(outcomes: Mapping[CounterName, Iterable[Cell]]) -> Counts:
    """Count the cells by counter."""
    return Counter((cell, counter) for counter, cells in outcomes.items() for cell in cells)


def to_rows(source: str, counts: Counts) -> list[SourceCount]:
    """Return the counts as this worker's rows, for a transaction that is about their one tenant."""
    return [
        SourceCount(
            minute=dt.datetime.fromtimestamp(cell.minute * _SECONDS_PER_MINUTE, dt.UTC),
            source=source,
            hop=Hop.WORKER,
            model=cell.model,
            stratum=cell.stratum,
            counter=counter,
            count=count,
        )
        for (cell, counter), count in counts.items()
    ]
