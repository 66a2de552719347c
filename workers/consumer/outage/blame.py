"""What a delivery counts when the decoder itself fell over it: whether an entry is to blame. Pure.

A decoder that breaks, or hangs, is an outage, and no entry is to lose a delivery by it. Yet one entry may
be what breaks every decoder, and for ever: that one must become a dead letter. The two look alike, so
after an outage each entry is handed out alone, and before it the decoder proves that it reads: see PROOFS.
An entry is blamed only when the decoder broke on it right after that. A decoder that breaks on its proof
clears the entry of all that was held against it.
"""

from collections.abc import Collection, Mapping
from typing import Final

PROOFS: Final = (1, 8)
"""How often the decoder reads the known vector before a suspect, at least and at most; the number is drawn.

A decoder that breaks after so many readings in every process would else break on the same entry each
time. So it does one time in eight, and an innocent entry has to meet with that at every delivery.
"""
_ALONE_NEXT_TIME: Final = 0
"""Pending without a delivery: no dead worker leaves that behind, so the queue hands it out alone."""
_TWICE: Final = 2


def is_alone_next_time(deliveries: int) -> bool:
    """Tell whether a pending entry is handed out alone: after an outage, or from its third delivery on.

    An entry that kills its worker would otherwise use up the deliveries of its neighbours.
    """
    return deliveries != 1


def taken_together(left: Mapping[bytes, int], count: int) -> list[bytes]:
    """Return which pending entries, ids with their deliveries, are handed out with the first of them.

    At most ``count``; a first one that is to be alone is, and none that is to be alone comes with others.
    """
    first = next(iter(left))
    if is_alone_next_time(left[first]):
        return [first]
    return [id_ for id_, deliveries in left.items() if not is_alone_next_time(deliveries)][:count]


def after_outage(deliveries: Mapping[bytes, int], blamed: Collection[bytes]) -> dict[bytes, int]:
    """Return how many deliveries each entry of the batch stands at from now on, none of them at 1.

    ``deliveries`` includes the one that the outage ended. A blamed entry keeps all; any other begins anew.
    """
    return {
        id_: max(count, _TWICE) if id_ in blamed else _ALONE_NEXT_TIME for id_, count in deliveries.items()
    }
