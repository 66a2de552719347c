"""What this worker counted, minute by minute, as values that can be thrown away with their transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.store.coverage import SourceCount

_KEPT_MINUTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Cumulative counts of one source within each of its newest minutes. Immutable."""

    source: str
    model: str
    minutes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)  # Unix time // 60

    def plus(self, minute: int, counts: Mapping[str, int]) -> "Ledger":
        """Return the ledger with these counts added to that minute."""
        added = Counter(self.minutes.get(minute, {}))
        added.update({name: count for name, count in counts.items() if count})
        newest = sorted({*self.minutes, minute})[-_KEPT_MINUTES:]
        minutes = {known: self.minutes.get(known, {}) for known in newest} | {minute: dict(added)}
        return Ledger(source=self.source, model=self.model, minutes=minutes)

    def counts_of(self, minute: int) -> list[SourceCount]:
        """Return one minute's counts as rows."""
        return [
            SourceCount(
                minute=dt.datetime.fromtimestamp(minute * 60, dt.UTC),
                source=self.source,
                hop="worker",
                model=self.model,
                counter=counter,
                count=count,
            )
            for counter, count in sorted(self.minutes.get(minute, {}).items())
        ]
