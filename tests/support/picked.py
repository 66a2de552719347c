"""The rows that the plugin picked, as plain values."""

from typing import NamedTuple

from subtext_sidecar.plugin.sampling import rule
from subtext_sidecar.plugin.sampling.watchlist import RowSelection


class Row(NamedTuple):
    request_id: str
    stratum: str
    position: int
    probability: float


def rows_of(picked: RowSelection) -> list[Row]:
    return [
        Row(
            watch.request.request_id,
            watch.stratum,
            position,
            rule.probability_of(watch.choice, position),
        )
        for watch, position in picked.wanted
    ]
