"""Plain values between the store and the judge: requests that wait for a test, and windows. Pure.

The store gathers the requests and knows no statistics. The judge tests them and knows no table.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple


class Untested(NamedTuple):
    """One capture at one layer, with its rows of the random baseline that have a p-value."""

    capture_id: uuid.UUID
    request_id: str
    layer: int
    positions: Sequence[int]
    """Ascending."""
    p_values: Sequence[float]
    """Of the rows, in the same order."""
    first_captured_at: dt.datetime
    last_captured_at: dt.datetime


class NewTest(NamedTuple):
    """What came out for one request."""

    request: Untested
    p_value: float
    q_value: float
    rank: int
    calibration_n: int
    positions: Sequence[int]
    """That it was tested by."""
    row_p_values: Sequence[float]
    is_discovery: bool


class NewWindow(NamedTuple):
    """Requests that were tested together, likeliest anomaly first."""

    reference_digest: str
    fdr: float
    threshold: float | None
    """Largest p-value that was a discovery."""
    closed_at: dt.datetime
    tests: Sequence[NewTest]
    """At least one."""
