"""Collect activations of live traffic from the stream, to fit a detector's reference on.

Collecting joins no consumer group, so the workers still get every entry. Only rows of the random baseline
are collected: rows that the screen chose, or canaries, would bias the reference towards unusual traffic.
"""

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from redis import Redis, RedisError

from subtext_sidecar.anomaly.reference import AnomalyError
from subtext_sidecar.anomaly.score import Places
from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.record import Header, Record, RecordError, decode
from subtext_sidecar.contract.streams import FIELD_HEADER, FIELD_VECTOR, activations_stream

_ENTRIES_PER_READ: Final = 256
_WAIT_MILLISECONDS: Final = 500


class Activations(NamedTuple):
    """Raw activations, what numbers each row's request, and what else is known of the rows."""

    vectors: npt.NDArray[np.float32]  # (n, d_model)
    documents: npt.NDArray[np.int64]  # (n,); by the client's id: beams and halves of a request are one
    captures: npt.NDArray[np.int64]  # (n,); by our own
    places: Places | None  # None: a file of before, which does not tell


def collect(redis_url: str, *, model: str, layer: int, rows: int, seconds: float) -> Activations:
    """Return the next ``rows`` baseline rows of a model and layer, or those that arrive within ``seconds``.

    Raises AnomalyError when Redis fails or no row arrives.
    """
    vectors: list[npt.NDArray[np.float32]] = []
    documents: list[int] = []
    captures: list[int] = []
    of_clients: dict[str, int] = {}
    of_captures: dict[str, int] = {}
    headers: list[Header] = []
    try:
        with Redis.from_url(redis_url) as client:
            for record in _records(client, activations_stream(model, layer), time.monotonic() + seconds):
                header = record.header
                if (header.model, header.layer) != (model, layer) or not header.baseline_probability:
                    continue
                if header.request.stratum == Stratum.CANARY:
                    continue
                vectors.append(record.values())
                headers.append(header)
                name = header.request.request_id
                documents.append(of_clients.setdefault(name, len(of_clients)))
                captures.append(of_captures.setdefault(header.request.capture_id or name, len(of_captures)))
                if len(vectors) == rows:
                    break
    except RedisError as error:
        raise AnomalyError(f"{type(error).__name__}: {error}") from error
    if not vectors:
        raise AnomalyError(f"no row of {model} at layer {layer} came in {seconds:.0f} s")
    return Activations(
        np.stack(vectors),
        np.array(documents, np.int64),
        np.array(captures, np.int64),
        Places.of(headers),
    )


def _records(client: Redis, stream: str, deadline: float) -> Iterator[Record]:
    """Yield records appended from now on; skip invalid ones, which the workers report."""
    last: Any = "$"
    while time.monotonic() < deadline:
        answers: Any = client.xread({stream: last}, _ENTRIES_PER_READ, _WAIT_MILLISECONDS)
        for _, entries in answers:
            for last, fields in entries:  # noqa: B007  # the next read starts after ``last``
                try:
                    yield decode(fields[FIELD_HEADER], fields[FIELD_VECTOR])
                except (KeyError, RecordError):
                    continue
