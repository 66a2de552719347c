"""What every process counts: hops, strata, units, counters and reasons, named here and nowhere else.

docs/counters.md is generated from this module. A stored count keeps its counter's name for ever, so
names are added and never changed. This module runs inside the engine's process and in the service:
it imports the standard library alone. Reading a member off its class costs more than all else that
is done with it, so code that runs in every step keeps the member in a constant of its own.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, Self


class Hop(StrEnum):
    """A process that counts, in the order in which a row comes by."""

    PLUGIN = "plugin"
    SIDECAR = "sidecar"
    WORKER = "worker"


class _ExplainedName(StrEnum):
    """A name with what it means, in one sentence."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        """Make the member that is this name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member


class Stratum(_ExplainedName):
    """Requests that are sampled by one rule, with denominators of their own."""

    UNIFORM = "uniform", "The keyed hash of its capture, or its trace, decides whether it is sampled."
    OPT_IN = "opt_in", "The client asked for it, so the request is always sampled."
    OPT_OUT = "opt_out", "The client asked not to be read, so the request is seen and never sampled."
    CANARY = (
        "canary",
        "It is a control prompt of the operator's, proved by his secret: always sampled, and no traffic.",
    )
    UNKNOWN = "unknown", "The row no longer tells its stratum."


class Unit(StrEnum):
    """What a counter counts."""

    REQUESTS = "requests"
    POSITIONS = "positions"
    ROWS = "rows"


class LossKind(_ExplainedName):
    """How something is lost; the names of the counters start with it, and the reason follows."""

    DROPPED = "dropped", "A bound was reached, or an error happened."
    DEAD_LETTERED = "dead_lettered", "The row cannot be used and was set aside."
    UNOBSERVABLE = "unobservable", "There was no activation to sample."


class RejectReason(_ExplainedName):
    """Why a record, a block or a message must not be used: a label of metrics and dead letters."""

    MALFORMED_HEADER = "malformed_header", "The header is not what its format says."
    WRONG_VERSION = "wrong_version", "The version is one that this reader does not know."
    BAD_FIELD = "bad_field", "A field is missing, of another type or out of its range."
    OVERSIZED = "oversized", "Something is larger than its limit."
    BAD_LENGTH = "bad_length", "The vector has another length than the header says."
    BAD_CHECKSUM = "bad_checksum", "The vector's bytes are not those that the plugin sent."
    NOT_FINITE = "not_finite", "A value is not a number, or infinite."


class DeadLetterReason(_ExplainedName):
    """Why a worker sets an entry aside, besides RejectReason."""

    MISSING_FIELD = "missing_field", "The entry has no header or no vector."
    ZERO_VECTOR = "zero_vector", "The vector has no direction to read."
    WRONG_DECODER = "wrong_decoder", "The worker's decoder reads another model, layer or width."
    DECODE_FAILED = "decode_failed", "The worker failed on this entry at every delivery."
    STORE_REFUSED = "store_refused", "PostgreSQL refuses what is in it."
    TOO_MANY_DELIVERIES = "too_many_deliveries", "Workers took the entry and said nothing more."
    TOO_MANY_TENANTS = "too_many_tenants", "Its tenant is new, and the store takes no more of the stream."


class TraceFault(_ExplainedName):
    """What of a request's trace is malformed and therefore ignored."""

    TRACEPARENT = "traceparent", "The trace's parent is malformed."
    TRACESTATE = "tracestate", "The trace's state is malformed, or stands without a parent."
    RV = "rv", "The trace's explicit randomness is malformed."
    TH = "th", "The trace's threshold is malformed."
    INCONSISTENT_TH = "inconsistent_th", "The trace's threshold contradicts its decision to sample."


class CounterName(StrEnum):
    """A counter of a coverage ledger, with its unit and what it says of one of them."""

    unit: Unit
    meaning: str

    def __new__(cls, name: str, unit: Unit, meaning: str) -> Self:
        """Make the member that is this name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.unit, member.meaning = unit, meaning
        return member

    @property
    def hop(self) -> Hop:
        """The process that counts it."""
        return _HOPS[type(self)]


def _of_reason(prefix: str, unit: Unit, reason: _ExplainedName) -> tuple[str, Unit, str]:
    return f"{prefix}_{reason}", unit, reason.meaning


class PluginCounter(CounterName):
    """What the plugin counts. A row that is dropped is in ``rows_sampled`` as well."""

    REQUESTS_SEEN = (
        "requests_seen",
        Unit.REQUESTS,
        "It reached the engine: each of n completions, prompts of a batch and beams is one.",
    )
    REQUESTS_SAMPLED = "requests_sampled", Unit.REQUESTS, "It was chosen for sampling."
    REQUESTS_CONTINUED = (
        "requests_continued",
        Unit.REQUESTS,
        "It was seen here, and another engine had computed its prompt.",
    )
    REQUESTS_PREFILLED = (
        "requests_prefilled",
        Unit.REQUESTS,
        "This engine computed its prompt alone; the engine that writes its answer counts it as seen.",
    )
    REQUESTS_PREFILLED_SAMPLED = (
        "requests_prefilled_sampled",
        Unit.REQUESTS,
        "It was prefilled and chosen for sampling.",
    )
    REQUESTS_TRACED = "requests_traced", Unit.REQUESTS, "The randomness of its trace decided."
    REQUESTS_ADAPTED = "requests_adapted", Unit.REQUESTS, "It was sampled and ran with a LoRA adapter."

    OPT_IN_NOT_HONOURED = "opt_in_not_honoured", Unit.REQUESTS, "It asked to be read; the policy says no."
    OPT_OUT_NOT_HONOURED = "opt_out_not_honoured", Unit.REQUESTS, "It asked not to be; the policy says no."
    IGNORED_WISH = "ignored_wish", Unit.REQUESTS, "Its wish was neither on nor off."
    IGNORED_KV_TRANSFER = (
        "ignored_kv_transfer",
        Unit.REQUESTS,
        "It named a transfer of its prompt that this engine had no part in.",
    )
    IGNORED_TRANSFER_ID = (
        "ignored_transfer_id",
        Unit.REQUESTS,
        "The id of its transfer was missing, used before or one too many, so its own capture was drawn.",
    )
    IGNORED_CANARY = (
        "ignored_canary",
        Unit.REQUESTS,
        "It called itself a canary and could not prove it, or too late; it is sampled like any other.",
    )
    IGNORED_CANARY_REPLAYED = (
        "ignored_canary_replayed",
        Unit.REQUESTS,
        "The proof that it is a canary was used before; it is sampled like any other.",
    )
    IGNORED_CANARY_EXCESS = (
        "ignored_canary_excess",
        Unit.REQUESTS,
        "It is a canary too many, or longer than canaries may be; it is sampled like any other.",
    )
    IGNORED_CANARY_ALTERED = (
        "ignored_canary_altered",
        Unit.REQUESTS,
        "It carries the proof of a canary with another prompt; it is sampled like any other.",
    )
    REQUESTS_OF_SUBJECT = (
        "requests_of_subject",
        Unit.REQUESTS,
        "It was sampled, and tells whose data it is.",
    )
    SUBJECT_MISSING = (
        "subject_missing",
        Unit.REQUESTS,
        "It was sampled and does not tell whose data it is, where subjects are kept.",
    )
    SUBJECT_NOT_HONOURED = (
        "subject_not_honoured",
        Unit.REQUESTS,
        "It was sampled and tells whose data it is, where no subjects are kept.",
    )
    IGNORED_SUBJECT = (
        "ignored_subject",
        Unit.REQUESTS,
        "It was sampled, and what tells whose data it is was no such thing, or not proved.",
    )
    IGNORED_TRACEPARENT = _of_reason("ignored", Unit.REQUESTS, TraceFault.TRACEPARENT)
    IGNORED_TRACESTATE = _of_reason("ignored", Unit.REQUESTS, TraceFault.TRACESTATE)
    IGNORED_RV = _of_reason("ignored", Unit.REQUESTS, TraceFault.RV)
    IGNORED_TH = _of_reason("ignored", Unit.REQUESTS, TraceFault.TH)
    IGNORED_INCONSISTENT_TH = _of_reason("ignored", Unit.REQUESTS, TraceFault.INCONSISTENT_TH)

    UNOBSERVABLE_UNREADABLE = (
        "unobservable_unreadable",
        Unit.REQUESTS,
        "What its client sent about it made our code fail: it was skipped, and the others were not.",
    )
    UNOBSERVABLE_INTERRUPTED = (
        "unobservable_interrupted",
        Unit.REQUESTS,
        "It was sampled when an error turned capture off: what it still did was not looked at.",
    )
    UNOBSERVABLE_CAPTURE_OFF = (
        "unobservable_capture_off",
        Unit.REQUESTS,
        "It came while an error kept capture off; it is not among the seen.",
    )
    UNOBSERVABLE_PREFILL_OFF = (
        "unobservable_prefill_off",
        Unit.REQUESTS,
        "Its prompt was computed here while capture was off; the engine that writes its answer counts it.",
    )
    UNOBSERVABLE_PREFIX_CACHED = (
        "unobservable_prefix_cached",
        Unit.POSITIONS,
        "It was wanted and came from the prefix cache, so it was never computed.",
    )
    UNOBSERVABLE_DRAFTED = (
        "unobservable_drafted",
        Unit.POSITIONS,
        "It was wanted and came from an accepted draft, whose row is not certain to be text.",
    )
    POSITIONS_REPEATED = "positions_repeated", Unit.POSITIONS, "It was computed again after a preemption."

    ROWS_SAMPLED = "rows_sampled", Unit.ROWS, "It was chosen, whatever became of it."
    ROWS_HANDED_OVER = "rows_handed_over", Unit.ROWS, "The socket to the sidecar took it."
    DROPPED_QUEUE_FULL = "dropped_queue_full", Unit.ROWS, "The ring had no room for the rows of its step."
    DROPPED_RING_FULL = "dropped_ring_full", Unit.ROWS, "The ring held the rows of too many steps."
    DROPPED_SOCKET_FULL = "dropped_socket_full", Unit.ROWS, "The socket did not take it."
    DROPPED_OVERSIZED = "dropped_oversized", Unit.ROWS, "Its block was too large for the socket."
    DROPPED_BUDGET = "dropped_budget", Unit.ROWS, "The budget of rows a second was spent."
    DROPPED_ERROR = (
        "dropped_error",
        Unit.ROWS,
        "It could not be gathered, encoded or sent, and capture went off.",
    )
    DROPPED_POSITION_MISMATCH = (
        "dropped_position_mismatch",
        Unit.ROWS,
        "The device computed another position than the host foresaw.",
    )
    DROPPED_EMBEDDED = (
        "dropped_embedded",
        Unit.ROWS,
        "Its position was fed with an embedding of the client's, so no token stands there.",
    )
    DROPPED_AFTER_END = "dropped_after_end", Unit.ROWS, "It is of the pass after the end of the text."


class SidecarCounter(CounterName):
    """What the sidecar counts."""

    ROWS_RECEIVED = "rows_received", Unit.ROWS, "It came through the socket, fit for use or not."
    ROWS_SHIPPED = "rows_shipped", Unit.ROWS, "It was written to the stream."
    THINNED = "thinned", Unit.ROWS, "Chance left it out, with a known probability; this is no loss."
    SCREENED_ANOMALY = "screened_anomaly", Unit.ROWS, "The screen found its state unusual."
    SCREENED_PROBE = "screened_probe", Unit.ROWS, "A probe direction of the screen found it."
    DROPPED_BUFFER_FULL = "dropped_buffer_full", Unit.ROWS, "The buffer had no room for it."
    DROPPED_REDIS_ERROR = "dropped_redis_error", Unit.ROWS, "Redis was away when the sidecar stopped."
    DROPPED_TRIMMED = (
        "dropped_trimmed",
        Unit.ROWS,
        "The bound of the stream pushed it out before it was read.",
    )
    DROPPED_INVALID_MALFORMED_HEADER = _of_reason(
        "dropped_invalid", Unit.ROWS, RejectReason.MALFORMED_HEADER
    )
    DROPPED_INVALID_WRONG_VERSION = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.WRONG_VERSION)
    DROPPED_INVALID_BAD_FIELD = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.BAD_FIELD)
    DROPPED_INVALID_OVERSIZED = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.OVERSIZED)
    DROPPED_INVALID_BAD_LENGTH = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.BAD_LENGTH)
    DROPPED_INVALID_BAD_CHECKSUM = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.BAD_CHECKSUM)
    DROPPED_INVALID_NOT_FINITE = _of_reason("dropped_invalid", Unit.ROWS, RejectReason.NOT_FINITE)


class WorkerCounter(CounterName):
    """What the workers count."""

    ROWS_CONSUMED = "rows_consumed", Unit.ROWS, "It was taken from the stream and has an outcome."
    ROWS_DECODED = "rows_decoded", Unit.ROWS, "Its explanation was stored."
    ROWS_DUPLICATE = "rows_duplicate", Unit.ROWS, "Another capture of the same sample was explained before."
    ROWS_REDELIVERED = "rows_redelivered", Unit.ROWS, "This very capture was counted before and came again."
    ROWS_TRIMMED_BUT_READ = (
        "rows_trimmed_but_read",
        Unit.ROWS,
        "A worker was reading it when it was trimmed.",
    )
    DEAD_LETTERED_MALFORMED_HEADER = _of_reason("dead_lettered", Unit.ROWS, RejectReason.MALFORMED_HEADER)
    DEAD_LETTERED_WRONG_VERSION = _of_reason("dead_lettered", Unit.ROWS, RejectReason.WRONG_VERSION)
    DEAD_LETTERED_BAD_FIELD = _of_reason("dead_lettered", Unit.ROWS, RejectReason.BAD_FIELD)
    DEAD_LETTERED_OVERSIZED = _of_reason("dead_lettered", Unit.ROWS, RejectReason.OVERSIZED)
    DEAD_LETTERED_BAD_LENGTH = _of_reason("dead_lettered", Unit.ROWS, RejectReason.BAD_LENGTH)
    DEAD_LETTERED_BAD_CHECKSUM = _of_reason("dead_lettered", Unit.ROWS, RejectReason.BAD_CHECKSUM)
    DEAD_LETTERED_NOT_FINITE = _of_reason("dead_lettered", Unit.ROWS, RejectReason.NOT_FINITE)
    DEAD_LETTERED_MISSING_FIELD = _of_reason("dead_lettered", Unit.ROWS, DeadLetterReason.MISSING_FIELD)
    DEAD_LETTERED_ZERO_VECTOR = _of_reason("dead_lettered", Unit.ROWS, DeadLetterReason.ZERO_VECTOR)
    DEAD_LETTERED_WRONG_DECODER = _of_reason("dead_lettered", Unit.ROWS, DeadLetterReason.WRONG_DECODER)
    DEAD_LETTERED_DECODE_FAILED = _of_reason("dead_lettered", Unit.ROWS, DeadLetterReason.DECODE_FAILED)
    DEAD_LETTERED_STORE_REFUSED = _of_reason("dead_lettered", Unit.ROWS, DeadLetterReason.STORE_REFUSED)
    DEAD_LETTERED_TOO_MANY_DELIVERIES = _of_reason(
        "dead_lettered", Unit.ROWS, DeadLetterReason.TOO_MANY_DELIVERIES
    )
    DEAD_LETTERED_TOO_MANY_TENANTS = _of_reason(
        "dead_lettered", Unit.ROWS, DeadLetterReason.TOO_MANY_TENANTS
    )


_HOPS: Final[dict[type[CounterName], Hop]] = {
    PluginCounter: Hop.PLUGIN,
    SidecarCounter: Hop.SIDECAR,
    WorkerCounter: Hop.WORKER,
}

COUNTERS: Final[tuple[CounterName, ...]] = (*PluginCounter, *SidecarCounter, *WorkerCounter)

_BY_NAME: Final = {str(counter): counter for counter in COUNTERS}

# A reason without its counter fails here, when this module is imported.
IGNORED: Final = {fault: _BY_NAME[f"ignored_{fault}"] for fault in TraceFault}
# What requests asked for and did not get, by the reason that metrics show.
UNHEEDED: Final[dict[str, CounterName]] = {
    "opt_in": PluginCounter.OPT_IN_NOT_HONOURED,
    "opt_out": PluginCounter.OPT_OUT_NOT_HONOURED,
    "wish": PluginCounter.IGNORED_WISH,
    "kv_transfer": PluginCounter.IGNORED_KV_TRANSFER,
    "transfer_id": PluginCounter.IGNORED_TRANSFER_ID,
    "canary": PluginCounter.IGNORED_CANARY,
    "canary_replayed": PluginCounter.IGNORED_CANARY_REPLAYED,
    "canary_excess": PluginCounter.IGNORED_CANARY_EXCESS,
    "canary_altered": PluginCounter.IGNORED_CANARY_ALTERED,
    "subject": PluginCounter.IGNORED_SUBJECT,
    "subject_not_honoured": PluginCounter.SUBJECT_NOT_HONOURED,
    "subject_missing": PluginCounter.SUBJECT_MISSING,
    **{str(fault): counter for fault, counter in IGNORED.items()},
}
INVALID: Final = {reason: _BY_NAME[f"dropped_invalid_{reason}"] for reason in RejectReason}
DEAD_LETTERED: Final[dict[RejectReason | DeadLetterReason, CounterName]] = {
    reason: _BY_NAME[f"dead_lettered_{reason}"] for reason in (*RejectReason, *DeadLetterReason)
}


class LossCause(NamedTuple):
    """How and why something was lost."""

    kind: LossKind
    reason: str


@lru_cache(maxsize=1024)  # a report asks for one counter in thousands of minutes
def loss_of(counter: str) -> LossCause | None:
    """Return what a counter says was lost, or None when it counts no loss.

    It goes by the name alone, because stored counts may come from another version.
    """
    for kind in LossKind:
        if counter.startswith(f"{kind}_"):
            return LossCause(kind, counter.removeprefix(f"{kind}_"))
    return None
