"""What a delivery counts when the decoder itself fell over it: whether an entry is to blame. Pure.

A decoder that breaks, or hangs, is an outage, and no entry is to lose a delivery by it. Yet one entry may
be what breaks every decoder, and for ever: that one must become a dead letter. The two look alike, so an
entry is blamed only when it was alone in the decoder's hands, and the same process had read others before.
"""

from collections.abc import Collection, Mapping
from typing import Final

_ALONE_NEXT_TIME: Final = 0
"""Pending without a delivery: no dead worker leaves that behind, so the queue hands it out alone."""
_TWICE: Final = 2


def is_alone_next_time(deliveries: int) -> bool:
    """Tell whether a pending entry is handed out alone: after an outage, or from its third delivery on.

    An entry that kills its worker would otherwise use up the deliveries of its neighbours.
    """
    return deliveries != 1


def after_outage(deliveries: Mapping[bytes, int], blamed: Collection[bytes]) -> dict[bytes, int]:
    """Return how many deliveries each entry of the batch stands at from now on, none of them at 1.

    ``deliveries`` includes the one that the outage ended. A blamed entry keeps it; any other does not.
    """
    return {
        id_: max(count, _TWICE) if id_ in blamed else (count - 1 if count > _TWICE else _ALONE_NEXT_TIME)
        for id_, count in deliveries.items()
    }
