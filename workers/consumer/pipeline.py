"""What happens to a batch between stream and store, as functions of plain values.

No database, no queue and no clock in here: the loop brings the values and acts on the answers.
"""

import datetime as dt
import math
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.store.tables import Sample
from service.store.write.canaries import NewCanaryReading
from service.store.write.readings import NewMatch, NewReading
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import DeadLetterReason, RejectReason, Stratum
from workers.consumer.queue import Entry
from workers.errors import PermanentError
from workers.judge.judge import Judgement
from workers.nla.decoder import Claims, DecoderIdentity, Reading

# A key of two indexes: PostgreSQL refuses index rows above 2704 bytes, and clients choose this text.
_MAX_REQUEST_ID_BYTES = 1024
_MAX_INTEGER = 2**31 - 1
# What a sample takes from its record as it is: all that both know by the same name and in the same unit.
_CARRIED = sorted((record.FIELDS & set(Sample.__table__.columns.keys())) - {"captured_at", "capture_id"})
_SAMPLED_STRATA = (Stratum.UNIFORM, Stratum.OPT_IN, Stratum.CANARY)


class Work(NamedTuple):
    """A delivered entry with a record that this decoder can read."""

    entry: Entry
    record: record.Record
    sample_id: uuid.UUID

    @property
    def tenant(self) -> str:
        """Whose engine it was."""
        return self.record.header.tenant

    @property
    def captured_at(self) -> dt.datetime:
        """When the plugin took the activation, UTC."""
        return dt.datetime.fromtimestamp(self.record.header.captured_at, dt.UTC)

    @property
    def is_canary(self) -> bool:
        """Whether it is of the operator's own control prompts, and no traffic."""
        return self.record.header.request.stratum == Stratum.CANARY


class Rejection(NamedTuple):
    """An entry for the dead-letter stream."""

    entry: Entry
    reason: RejectReason | DeadLetterReason
    error: str


class SortedBatch(NamedTuple):
    """A batch divided by what to do with each entry."""

    works: list[Work]
    repeats: list[Work]  # the same sample once more in this batch
    rejections: list[Rejection]


def sort_entries(entries: Sequence[Entry], identity: DecoderIdentity, *, served_model: str) -> SortedBatch:
    """Divide a batch into what can be decoded, what is there twice, and what must be dead-lettered."""
    sorted_ = SortedBatch([], [], [])
    seen: set[uuid.UUID] = set()
    for entry in entries:
        try:
            work = _check(entry, identity, served_model)
        except record.RecordError as error:
            sorted_.rejections.append(Rejection(entry, error.reason, str(error)))
        except PermanentError as error:
            sorted_.rejections.append(Rejection(entry, error.reason, str(error)))
        else:
            if work.sample_id in seen:
                sorted_.repeats.append(work)
            else:
                seen.add(work.sample_id)
                sorted_.works.append(work)
    return sorted_


def _check(entry: Entry, identity: DecoderIdentity, served_model: str) -> Work:
    missing = [
        name.decode() for name in (streams.FIELD_HEADER, streams.FIELD_VECTOR) if name not in entry.fields
    ]
    if missing:
        raise PermanentError(
            DeadLetterReason.MISSING_FIELD, f"the entry has no field {' and '.join(missing)}"
        )
    decoded = record.decode(entry.fields[streams.FIELD_HEADER], entry.fields[streams.FIELD_VECTOR])
    _check_decoder(decoded.header, identity, served_model)
    _check_storable(decoded.header)
    if float(np.abs(decoded.values()).max()) == 0.0:
        raise PermanentError(
            DeadLetterReason.ZERO_VECTOR, "the vector is all zeros and has no direction to read"
        )
    return Work(entry, decoded, record.sample_id(decoded.header))


def _check_decoder(header: record.Header, identity: DecoderIdentity, served_model: str) -> None:
    checks = (
        ("model", header.model, served_model),
        ("layer", header.layer, identity.layer),
        ("d_model", header.shape[0], identity.d_model),
    )
    for field, got, needed in checks:
        if got != needed:
            raise PermanentError(
                DeadLetterReason.WRONG_DECODER,
                f"{field}: the record is for {got!r}, decoder {identity.name} reads {needed!r};"
                " start a worker with the decoder of that model and layer",
            )


def _check_storable(header: record.Header) -> None:
    """Refuse before decoding what the tables could never hold."""
    size = len(header.request.request_id.encode())
    if size > _MAX_REQUEST_ID_BYTES:
        raise PermanentError(
            RejectReason.OVERSIZED,
            f"request_id: has {size} bytes, limit {_MAX_REQUEST_ID_BYTES}; send a shorter id",
        )
    if header.request.stratum not in _SAMPLED_STRATA:
        raise PermanentError(
            RejectReason.BAD_FIELD,
            f"stratum: {header.request.stratum!r} is not one of {', '.join(_SAMPLED_STRATA)}",
        )
    request = header.request
    if request.stratum == Stratum.CANARY and (request.canary is None or request.capture_id is None):
        raise PermanentError(RejectReason.BAD_FIELD, "canary: it has no nonce or no capture_id")
    for field, value in (("position", header.position), ("token_id", header.token_id)):
        if value > _MAX_INTEGER:
            raise PermanentError(RejectReason.BAD_FIELD, f"{field}: {value} does not fit the store")
    try:
        dt.datetime.fromtimestamp(header.captured_at, dt.UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise PermanentError(
            RejectReason.BAD_FIELD, f"captured_at: {header.captured_at} is no time"
        ) from error


def by_tenant(works: Iterable[Work]) -> dict[str, list[Work]]:
    """Return the works by tenant, each in their order."""
    found: dict[str, list[Work]] = {}
    for work in works:
        found.setdefault(work.tenant, []).append(work)
    return found


class Repetitions(NamedTuple):
    """Works whose sample is explained already, by whether that was of this very capture."""

    redelivered: list[Work]  # the same capture once more: a repetition on the way, counted before
    duplicates: list[Work]  # another capture with the same identity: a recomputed or reused one


def split_repeated(works: Iterable[Work], known: Mapping[uuid.UUID, dt.datetime]) -> Repetitions:
    """Divide those works whose samples are known; ``known`` is by sample id, with the capture's time."""
    repeated = Repetitions([], [])
    for work in works:
        if work.sample_id in known:
            is_same = known[work.sample_id] == work.captured_at
            (repeated.redelivered if is_same else repeated.duplicates).append(work)
    return repeated


def worn_out(
    works: Sequence[Work], known: Collection[uuid.UUID], *, max_deliveries: int
) -> list[Rejection]:
    """Return rejections for works that were delivered too often and still have no explanation.

    One that has an explanation only lacks its settling: a dead letter would count it twice.
    """
    return [
        Rejection(
            work.entry,
            DeadLetterReason.TOO_MANY_DELIVERIES,
            f"delivered {work.entry.deliveries} times without an outcome; its workers may have died on it",
        )
        for work in works
        if work.entry.deliveries > max_deliveries and work.sample_id not in known
    ]


def stack(works: Sequence[Work]) -> NDArray[np.float32]:
    """Return the vectors of a batch, (n, d_model)."""
    return np.stack([work.record.values() for work in works])


def to_rows(
    works: Sequence[Work],
    readings: Sequence[Reading],
    verdicts: Sequence[Judgement],
    token_text: Callable[[int], str],
    *,
    is_trusted: bool,
) -> list[NewReading]:
    """Return the rows to store, one a work; ValueError when a fidelity is no number.

    Nothing is verified while the decoder is not trusted, whatever it says itself.
    """
    if not all(math.isfinite(figure) for reading in readings for figure in _figures(reading)):
        raise ValueError("readings: the decoder measured a figure that is not finite")
    return [
        NewReading(
            sample=_sample(work, token_text),
            request_names=work.record.header.request.request_names,
            text=storable(reading.text),
            well_formed=reading.well_formed,
            cosine=reading.cosine,
            fve=reading.fve,
            fve_beyond_token=reading.fve_beyond_token,
            position_class=reading.position_class,
            verified=reading.verified and is_trusted,
            claims=None if reading.claims is None else _claims(reading.claims),
            candidates=reading.candidates,
            margin=reading.margin,
            anomaly_score=verdict.anomaly_score,
            anomaly_p_value=verdict.anomaly_p_value,
            anomaly_calibration_n=verdict.anomaly_calibration_n,
            matches=[NewMatch(*match) for match in verdict.matches],
            engine_configuration=work.record.header.request.configuration,
        )
        for work, reading, verdict in zip(works, readings, verdicts, strict=True)
    ]


def divide(
    works: Sequence[Work], rows: Sequence[NewReading]
) -> tuple[list[NewReading], list[NewCanaryReading]]:
    """Return the rows of the traffic, and those of canaries."""
    traffic, canaries = [], []
    for work, row in zip(works, rows, strict=True):
        nonce = work.record.header.request.canary
        if work.is_canary and nonce is not None:
            canaries.append(NewCanaryReading(nonce, row))
        else:
            traffic.append(row)
    return traffic, canaries


def _sample(work: Work, token_text: Callable[[int], str]) -> Sample:
    header = work.record.header
    fields = record.fields_of(header)
    return Sample(
        **{name: fields[name] for name in _CARRIED},
        id=work.sample_id,
        capture_id=_capture_id(header),
        token_text=storable(token_text(header.token_id)),
        inclusion_probability=header.probability,
        screen_scores=header.scores,
        captured_at=work.captured_at,
    )


def _capture_id(header: record.Header) -> uuid.UUID | None:
    said = header.request.capture_id
    return None if said is None else uuid.UUID(hex=said)


def _figures(reading: Reading) -> list[float]:
    claims = reading.claims
    measured = (reading.cosine, reading.fve, reading.fve_beyond_token, reading.margin)
    said = (
        ()
        if claims is None
        else (claims.expects_agreement, *claims.areas.values(), *claims.kind_scores.values())
    )
    return [figure for figure in (*measured, *said) if figure is not None]


def _claims(claims: Claims) -> dict[str, Any]:
    """Return the claims as JSON."""
    return claims._asdict() | {
        "expects": None if claims.expects is None else storable(claims.expects),
        "kinds": list(claims.kinds),
        "areas": dict(claims.areas),
        "kind_scores": dict(claims.kind_scores),
    }


def storable(text: str) -> str:
    """Return the text as PostgreSQL can keep it: no NUL, no lone surrogate."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
