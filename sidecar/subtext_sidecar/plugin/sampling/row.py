"""What is known about a taken row besides its values."""

from typing import NamedTuple


class Row(NamedTuple):
    """What the host knows about one taken row."""

    request_id: str  # external
    stratum: str  # of the request: Stratum.UNIFORM or OPT_IN
    position: int
    is_prefill: bool
    probability: float
    reason: str
