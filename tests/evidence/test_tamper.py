"""A thousand random single changes of rows, log and checkpoints: `verify` finds and names each."""

import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from service.evidence import entry, note
from service.evidence.entry import Leaf
from service.evidence.incident import IncidentState
from service.evidence.merkle import Frontier
from service.evidence.note import Checkpoint
from service.evidence.payloads import Kind, payload_of
from service.evidence.row import Row
from service.evidence.tombstones import Ranges, count_of, ranges_of, tombstone_payload
from service.evidence.verify import TILE_HEIGHT, Node, Pending, Report, What, origin_of, verify

START = datetime(2026, 11, 28, tzinfo=UTC)
TENANT = uuid.UUID(int=7)
SIGNER = note.generate("subtext.example")
ORIGIN = origin_of(SIGNER.name, TENANT)
CHANGES = 1000
SIGNED, WAITING = 300, 12
ERASED, BURIED_AT = range(30, 60), 150
"""Rows whose explanations were erased, and the row after which their tombstone stands."""
KINDS_OF_ROWS = [
    *[Kind.EXPLANATION] * 6,
    Kind.INCIDENT_EVENT,
    Kind.CONCEPT_VERSION,
    Kind.DECODER,
    Kind.CONFIGURATION_VERSION,
    Kind.CONFIGURATION_CONTENT,
    Kind.CONFIGURATION_PERIOD,
]


@dataclass(frozen=True)
class Image:
    """A store at one moment, in memory."""

    rows_: tuple[Row, ...]
    leaves_: tuple[Leaf, ...]
    nodes_: tuple[Node, ...]
    pending_: tuple[Pending, ...]
    copies: tuple[str, ...]
    folder: tuple[str, ...]
    erased: tuple[tuple[int, Row], ...]
    """Rows that were deleted under the tombstone, with the places of their entries."""
    incidents_: tuple[IncidentState, ...]

    def leaves(self) -> Sequence[Leaf]:
        return sorted(self.leaves_, key=lambda one: one.seq)

    def nodes(self) -> Sequence[Node]:
        return self.nodes_

    def find(self, commitments: Sequence[bytes]) -> Mapping[bytes, Leaf]:
        known = {one.commitment: one for one in self.leaves_}
        return {one: known[one] for one in commitments if one in known}

    def pending(self) -> Sequence[Pending]:
        return self.pending_

    def rows(self) -> Sequence[Sequence[Row]]:
        return [self.rows_]

    def incidents(self) -> Sequence[IncidentState]:
        return self.incidents_

    def notes(self) -> Sequence[str]:
        return self.copies


def check(image: Image) -> Report:
    return verify(image, image.folder, SIGNER.verifier, ORIGIN)


def row(number: int, kind: Kind, at: datetime) -> Row:
    payload = {"id": str(number), "text": f"reading {number}", "fve": number / 7, "at": entry.moment(at)}
    if kind == Kind.INCIDENT_EVENT:
        payload |= event(number)
    return Row(kind=kind, key=str(number), at=at, salt=entry.new_salt(), payload=payload)


def tombstone(
    key: int, at: datetime, leaves: Ranges, count: int | None = None, reason: str = "erasure"
) -> Row:
    values = {
        "id": str(uuid.UUID(int=key)),
        "at": at,
        "reason": reason,
        "authority": uuid.UUID(int=5),
        "leaves": leaves,
        "count": count_of(leaves) if count is None else count,
    }
    return Row(
        kind=Kind.TOMBSTONE, key=str(key), at=at, salt=entry.new_salt(), payload=tombstone_payload(values)
    )


def access(at: datetime) -> tuple[Row, Row]:
    """Return an entry of the access log before and after ids were erased from it."""
    values = {"id": "access", "subject_ids": ["a", "b"]}
    first = Row(
        kind=Kind.ACCESS,
        key="access",
        at=at,
        salt=entry.new_salt(),
        payload=payload_of(Kind.ACCESS, values),
    )
    trail = first.commitments
    payload = payload_of(Kind.ACCESS, values | {"subject_ids": ["a"]}, trail)
    return first, replace(first, salt=entry.new_salt(), payload=payload, trail=trail)


def event(number: int) -> dict[str, object]:
    """Return what an event says of its incident: each has three, of which the last confirms it."""
    version = number // len(KINDS_OF_ROWS) % 3 + 1
    kind, state = (("opened", "open"), ("evidence", "open"), ("triaged", "confirmed"))[version - 1]
    return {
        "incident_id": f"incident {number // len(KINDS_OF_ROWS) // 3}",
        "version": version,
        "kind": kind,
        "to_state": state,
        "severity": "warning" if version > 1 else "info",
        "labels": {"bombs": True} if kind == "triaged" else {},
    }


def incidents_of(rows: Sequence[Row]) -> tuple[IncidentState, ...]:
    """Return where the events leave the incidents."""
    last = {one.payload["incident_id"]: one.payload for one in rows if one.kind == Kind.INCIDENT_EVENT}
    return tuple(
        IncidentState(key, one["version"], one["to_state"], one["severity"], one["labels"])
        for key, one in last.items()
    )


def plant() -> Image:
    rows = [
        row(number, KINDS_OF_ROWS[number % len(KINDS_OF_ROWS)], START + number * timedelta(minutes=1))
        for number in range(SIGNED - 20 - 3 + WAITING)  # with ten flags of two entries, and three more
    ]
    frontier = Frontier()
    leaves: list[Leaf] = []
    nodes: list[Node] = []
    notes: list[str] = []
    others: list[Row] = []
    erased: list[tuple[int, Row]] = []

    def add(kind: str, at: datetime, commitment: bytes) -> None:
        leaves.append(Leaf(len(leaves), kind, at, commitment))
        frontier.add(leaves[-1].hash())
        nodes.extend(Node(*one) for one in frontier.completed(TILE_HEIGHT))
        if len(leaves) % 25 == 0:
            text = Checkpoint(ORIGIN, frontier.size, frontier.root()).text()
            notes.append(SIGNER.sign(text))

    for number, one in enumerate(rows[:-WAITING]):
        if one.kind == Kind.EXPLANATION and number in ERASED:
            erased.append((len(leaves), one))
        add(one.kind, one.at, one.commitments[-1])
        if number % 28 == 0:  # a flag, and one of its changes
            first = row(10_000 + number, Kind.FLAG, one.at)
            payload = {**first.payload, "positions_verified": 9}
            flag = replace(first, trail=first.commitments, payload=payload)
            others.append(flag)
            for commitment in flag.commitments:
                add(Kind.FLAG, one.at, commitment)
        if number == ERASED[0]:
            before, after = access(one.at)
            shown = len(leaves)
            add(Kind.ACCESS, one.at, before.commitments[0])
        if number == BURIED_AT:
            stone = tombstone(1, one.at, ranges_of([shown, *(place for place, _ in erased)]))
            add(Kind.ACCESS, one.at, after.commitments[1])
            add(Kind.TOMBSTONE, one.at, stone.commitments[0])
            others += [after, stone]
    gone = {one.key for _, one in erased}
    waiting = [
        Pending(number, one.kind, one.at, one.commitments) for number, one in enumerate(rows[-WAITING:])
    ]
    assert len(leaves) == frontier.size == SIGNED
    return Image(
        (*(one for one in rows if one.key not in gone), *others),
        tuple(leaves),
        tuple(nodes),
        tuple(waiting),
        tuple(notes),
        tuple(notes),
        tuple(erased),
        incidents_of(rows),
    )


@pytest.fixture(scope="module")
def planted() -> Image:
    return plant()


def without(values: tuple, at: int) -> tuple:  # type: ignore[type-arg]  # of anything
    return (*values[:at], *values[at + 1 :])


def instead(values: tuple, at: int, new: object) -> tuple:  # type: ignore[type-arg]  # of anything
    return (*values[:at], new, *values[at + 1 :])


Change = Callable[[Image, random.Random], tuple[Image, set[What]]]


def edit_row(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.rows_))
    old = image.rows_[at]
    name = rng.choice(sorted(name for name, value in old.payload.items() if not isinstance(value, dict)))
    before = old.payload[name]
    value = before + 1 if isinstance(before, int | float) else f"{before}x"
    return replace(
        image, rows_=instead(image.rows_, at, replace(old, payload={**old.payload, name: value}))
    ), {What.ROW_CHANGED}


def edit_salt(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.rows_))
    salt = rng.choice([entry.new_salt(), None])
    return replace(image, rows_=instead(image.rows_, at, replace(image.rows_[at], salt=salt))), (
        {What.ROW_DELETED} if salt is None else {What.ROW_CHANGED}
    )


def cut_trail(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.choice([at for at, one in enumerate(image.rows_) if one.trail and one.kind == Kind.FLAG])
    return replace(image, rows_=instead(image.rows_, at, replace(image.rows_[at], trail=()))), {
        What.ROW_DELETED
    }


def delete_row(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    return replace(image, rows_=without(image.rows_, rng.randrange(len(image.rows_)))), {What.ROW_DELETED}


def insert_row(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = START + rng.uniform(2, 9) * timedelta(days=1)
    new = row(77_777, Kind.EXPLANATION, at)
    new = rng.choice([new, replace(new, salt=None)])
    return replace(image, rows_=(*image.rows_, new)), {What.ROW_NOT_IN_LOG}


def backdate_row(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Move the time of a row, as one whose time is in no payload."""
    at = rng.randrange(len(image.rows_))
    moved = image.rows_[at].at + rng.choice([-1, 1]) * rng.uniform(1, 99) * timedelta(hours=1)
    old = image.rows_[at]
    is_hidden = old.kind in {Kind.FLAG, Kind.DECODER} and moved < START
    # Of a period an earlier time is right; that it is the time of then, its entry tells.
    if is_hidden or old.kind == Kind.CONFIGURATION_PERIOD:
        moved = old.at + timedelta(hours=2)
    return replace(image, rows_=instead(image.rows_, at, replace(old, at=moved))), {What.BACKDATED}


def edit_leaf(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(SIGNED)
    old = image.leaves_[at]
    new = rng.choice(
        [
            old._replace(commitment=rng.randbytes(32)),
            old._replace(kind="canary"),
            old._replace(at=old.at + timedelta(microseconds=rng.choice([-1, 1]))),
        ]
    )
    return replace(image, leaves_=instead(image.leaves_, at, new)), {What.LEAVES_CHANGED}


def backdate_leaf(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(1, SIGNED)
    old = image.leaves_[at]
    new = old._replace(at=old.at - rng.uniform(2, 99) * timedelta(hours=1))
    return replace(image, leaves_=instead(image.leaves_, at, new)), {What.LEAVES_CHANGED, What.BACKDATED}


def delete_leaf(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    return replace(image, leaves_=without(image.leaves_, rng.randrange(SIGNED))), {What.LEAF_MISSING}


def insert_leaf(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    new = Leaf(SIGNED, Kind.EXPLANATION, image.leaves_[-1].at, rng.randbytes(32))
    return replace(image, leaves_=(*image.leaves_, new)), {What.ROW_DELETED}


def push_leaf_in(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(SIGNED)
    new = image.leaves_[at]._replace(commitment=rng.randbytes(32))
    moved = [one._replace(seq=one.seq + 1) for one in image.leaves_[at:]]
    return replace(image, leaves_=(*image.leaves_[:at], new, *moved)), {What.LEAVES_CHANGED}


def swap_leaves(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    one, other = rng.sample(range(SIGNED), 2)
    first, second = image.leaves_[one], image.leaves_[other]
    swapped = instead(image.leaves_, one, second._replace(seq=one))
    return replace(image, leaves_=instead(swapped, other, first._replace(seq=other))), {What.LEAVES_CHANGED}


def edit_node(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.nodes_))
    nodes = rng.choice(
        [
            without(image.nodes_, at),
            instead(image.nodes_, at, image.nodes_[at]._replace(hash=rng.randbytes(32))),
            (*image.nodes_, Node(1, 9, rng.randbytes(32))),
        ]
    )
    return replace(image, nodes_=nodes), {What.NODE_CHANGED}


def edit_pending(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(WAITING)
    old = image.pending_[at]
    return replace(
        image, pending_=instead(image.pending_, at, old._replace(commitments=(rng.randbytes(32),)))
    ), {What.ROW_CHANGED}


def delete_pending(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    return replace(image, pending_=without(image.pending_, rng.randrange(WAITING))), {What.ROW_NOT_IN_LOG}


def insert_pending(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    new = Pending(99, Kind.EXPLANATION, START, (rng.randbytes(32),))
    return replace(image, pending_=(*image.pending_, new)), {What.ROW_DELETED}


def backdate_pending(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(WAITING)
    old = image.pending_[at]
    return replace(
        image, pending_=instead(image.pending_, at, old._replace(at=old.at - timedelta(hours=5)))
    ), {What.BACKDATED}


def edit_note(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.folder))
    old = image.folder[at]
    place = rng.randrange(len(old) - 1)
    new = old[:place] + ("A" if old[place] != "A" else "B") + old[place + 1 :]
    return replace(image, folder=instead(image.folder, at, new)), {What.CHECKPOINT_UNREADABLE}


def edit_copy(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.copies))
    copies = rng.choice(
        [without(image.copies, at), instead(image.copies, at, image.copies[at].replace("=", "A", 1))]
    )
    return replace(image, copies=copies), {What.CHECKPOINT_MISSING}


def delete_note(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    return replace(image, folder=without(image.folder, rng.randrange(len(image.folder)))), {
        What.CHECKPOINT_MISSING
    }


def insert_note(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Put in one that another key has signed."""
    forged = note.generate(SIGNER.name).sign(Checkpoint(ORIGIN, 30, rng.randbytes(32)).text())
    at = rng.randrange(len(image.folder))
    return replace(image, folder=(*image.folder[:at], forged, *image.folder[at:])), {
        What.CHECKPOINT_UNREADABLE
    }


def swap_notes(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    one, other = rng.sample(range(len(image.folder)), 2)
    swapped = instead(image.folder, one, image.folder[other])
    return replace(image, folder=instead(swapped, other, image.folder[one])), {What.CHECKPOINT_OUT_OF_ORDER}


def fork(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Let whoever has the key sign another history."""
    at = rng.randrange(len(image.folder))
    forked = SIGNER.sign(Checkpoint(ORIGIN, 25 * (at + 1), rng.randbytes(32)).text())
    return replace(
        image, folder=instead(image.folder, at, forked), copies=instead(image.copies, at, forked)
    ), {What.LEAVES_CHANGED}


def with_tombstone(image: Image, stone: Row) -> Image:
    """Let whoever may bury say it: the tombstone is a row, and its entry waits for its place."""
    waiting = Pending(900, Kind.TOMBSTONE, stone.at, stone.commitments)
    return replace(image, rows_=(*image.rows_, stone), pending_=(*image.pending_, waiting))


def place_of_tombstone(image: Image) -> int:
    return next(at for at, one in enumerate(image.rows_) if one.kind == Kind.TOMBSTONE)


def widen_tombstone(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Let it cover a row more, and delete that."""
    at = place_of_tombstone(image)
    victim = rng.choice([one for one in image.rows_[: SIGNED // 3] if one.kind == Kind.EXPLANATION])
    place = image.find(victim.commitments)[victim.commitments[0]].seq
    old = image.rows_[at]
    leaves = ranges_of([*(one for span in old.payload["leaves"] for one in range(*span)), place])
    payload = {**old.payload, "leaves": [list(one) for one in leaves], "count": count_of(leaves)}
    rows = instead(image.rows_, at, replace(old, payload=payload))
    return replace(image, rows_=tuple(one for one in rows if one is not victim)), {
        What.ROW_CHANGED,
        What.ROW_DELETED,
    }


def delete_tombstone(image: Image, _: random.Random) -> tuple[Image, set[What]]:
    return replace(image, rows_=without(image.rows_, place_of_tombstone(image))), {What.ROW_DELETED}


def add_tombstone_without_entry(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Delete a row, and say so in a tombstone that the log does not have."""
    at = rng.randrange(SIGNED // 3)
    place = image.find(image.rows_[at].commitments)[image.rows_[at].commitments[0]].seq
    stone = tombstone(8, START + timedelta(hours=4), [(place, place + 1)])
    stone = rng.choice([stone, replace(stone, salt=None)])
    return replace(image, rows_=(*without(image.rows_, at), stone)), {What.ROW_NOT_IN_LOG, What.ROW_DELETED}


def restore_row(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    _, old = rng.choice(image.erased)
    return replace(image, rows_=(*image.rows_, old)), {What.TOMBSTONE_OVER_ROW}


def bury_standing(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    victim = rng.choice([one for one in image.rows_[: SIGNED // 3] if one.kind == Kind.EXPLANATION])
    place = image.find(victim.commitments)[victim.commitments[0]].seq
    stone = tombstone(8, image.pending_[-1].at, [(place, place + 1)])
    return with_tombstone(image, stone), {What.TOMBSTONE_OVER_ROW}


def bury_what_is_to_come(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Cover entries that have no place yet, waiting or behind one's own, so that they can be deleted."""
    behind = SIGNED + rng.randrange(1, 9)
    stone = tombstone(8, image.pending_[-1].at, [(SIGNED, behind + 1)])
    if rng.random() < 0.5:
        return with_tombstone(image, stone), {What.TOMBSTONE_AHEAD}
    leaves = [
        Leaf(SIGNED, Kind.TOMBSTONE, stone.at, stone.commitments[0]),
        *(
            Leaf(seq, Kind.EXPLANATION, stone.at, rng.randbytes(32))
            for seq in range(SIGNED + 1, behind + 1)
        ),
    ]
    return replace(image, rows_=(*image.rows_, stone), leaves_=(*image.leaves_, *leaves)), {
        What.TOMBSTONE_AHEAD,
        What.ROW_DELETED,
    }


def bury_what_nobody_may(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Delete a decoder, a definition or a tombstone under a tombstone."""
    kinds = {Kind.DECODER, Kind.CONCEPT_VERSION, Kind.TOMBSTONE}
    known = image.find([one for row in image.rows_ for one in row.commitments])
    at = rng.choice(
        [at for at, one in enumerate(image.rows_) if one.kind in kinds and one.commitments[0] in known]
    )
    place = known[image.rows_[at].commitments[0]].seq
    stone = tombstone(8, image.pending_[-1].at, [(place, place + 1)])
    return with_tombstone(replace(image, rows_=without(image.rows_, at)), stone), {What.ROW_DELETED}


def miscount(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    place, _ = rng.choice(image.erased)
    stone = tombstone(8, image.pending_[-1].at, [(place, place + 1)], count=rng.randrange(2, 99))
    return with_tombstone(image, stone), {What.TOMBSTONE_MISCOUNTED}


def redact_without_tombstone(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Take an id out of an entry of the access log once more, and log only what is left."""
    at = next(at for at, one in enumerate(image.rows_) if one.kind == Kind.ACCESS)
    old = image.rows_[at]
    payload = {**old.payload, "subject_ids": [], "suppressed": rng.randrange(99)}
    new = replace(old, salt=entry.new_salt(), payload=payload, trail=old.commitments)
    waiting = Pending(900, Kind.ACCESS, image.pending_[-1].at, new.commitments[-1:])
    return replace(image, rows_=instead(image.rows_, at, new), pending_=(*image.pending_, waiting)), {
        What.ROW_DELETED
    }


def edit_incident(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    at = rng.randrange(len(image.incidents_))
    old = image.incidents_[at]
    new = rng.choice(
        [
            old._replace(state="dismissed"),
            old._replace(severity="critical"),
            old._replace(labels={"bombs": False}),
            old._replace(version=old.version + 1),
        ]
    )
    return replace(image, incidents_=instead(image.incidents_, at, new)), {What.INCIDENT_CHANGED}


def delete_incident(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    return replace(image, incidents_=without(image.incidents_, rng.randrange(len(image.incidents_)))), {
        What.INCIDENT_CHANGED
    }


def insert_incident(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    new = IncidentState(f"new {rng.random()}", 1, "open", "info", {})
    return replace(image, incidents_=(*image.incidents_, new)), {What.INCIDENT_CHANGED}


def delete_event(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Delete an incident's last event, which leaves its row to say what no event says."""
    ends = {
        one.payload["incident_id"]: at for at, one in enumerate(image.rows_) if "to_state" in one.payload
    }
    at = rng.choice(sorted(ends.values()))
    return replace(image, rows_=without(image.rows_, at)), {What.ROW_DELETED, What.INCIDENT_CHANGED}


def hide_reader(image: Image, _rng: random.Random) -> tuple[Image, set[What]]:
    """Delete the row of the access log whose first state the tombstone covers, and bury its last one."""
    rows = [one for one in image.rows_ if one.kind != Kind.ACCESS]
    gone = next(one for one in image.rows_ if one.kind == Kind.ACCESS)
    places = [one.seq for one in image.leaves_ if one.commitment in gone.commitments]
    stone = tombstone(9, image.leaves_[-1].at, ranges_of(places))
    waits = Pending(99, stone.kind, stone.at, stone.commitments)
    return replace(image, rows_=(*rows, stone), pending_=(*image.pending_, waits)), {What.ROW_DELETED}


def remove_before_its_time(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Set a period, or let one wait, and remove by it at once what should stay for longer."""
    at = image.pending_[-1].at
    kind = rng.choice([Kind.ACCESS, Kind.EXPLANATION])
    gone = rng.choice([one for one in image.rows_[: SIGNED // 3] if one.kind == Kind.EXPLANATION])
    if kind == Kind.ACCESS:
        gone = next(one for one in image.rows_ if one.kind == Kind.ACCESS)
    places = [one.seq for one in image.leaves_ if one.commitment in gone.commitments]
    values = {"id": "period", "records": "access_log", "period_days": 1, "set_at": at, "in_force_from": at}
    payload = payload_of(Kind.RETENTION_VERSION, values)
    period = Row(kind=Kind.RETENTION_VERSION, key="period", at=at, salt=entry.new_salt(), payload=payload)
    stone = tombstone(9, at, ranges_of(places), reason="retention")
    waiting = [
        Pending(97 + number, one.kind, at, one.commitments) for number, one in enumerate((period, stone))
    ]
    rows = (*(one for one in image.rows_ if one is not gone), period, stone)
    return replace(image, rows_=rows, pending_=(*image.pending_, *waiting)), {
        What.ROW_DELETED,
        What.TOMBSTONE_NOT_DUE,
    }


def pass_off(image: Image, _rng: random.Random) -> tuple[Image, set[What]]:
    """Delete a row of the access log, and let another say that its entry was what it said before."""
    rows = [one for one in image.rows_ if one.kind != Kind.ACCESS]
    gone = next(one for one in image.rows_ if one.kind == Kind.ACCESS)
    at = image.leaves_[-1].at
    own, _ = access(at)
    trail = (*gone.commitments, *own.commitments)
    payload = payload_of(Kind.ACCESS, {"id": "another"}, trail)
    other = replace(own, key="another", salt=entry.new_salt(), payload=payload, trail=trail)
    places = [one.seq for one in image.leaves_ if one.commitment in gone.commitments]
    stone = tombstone(9, at, ranges_of(places))
    waiting = [Pending(97, Kind.ACCESS, at - timedelta(minutes=1), own.commitments)]
    waiting += [
        Pending(98, Kind.ACCESS, at, other.commitments[-1:]),
        Pending(99, stone.kind, at, stone.commitments),
    ]
    return replace(image, rows_=(*rows, other, stone), pending_=(*image.pending_, *waiting)), {
        What.ROW_CHANGED
    }


def lift_without_entry(image: Image, _rng: random.Random) -> tuple[Image, set[What]]:
    """Lift a legal hold as if it had been done before the log."""
    lift = Row(kind=Kind.LEGAL_HOLD_LIFT, key="lift", at=START, salt=None, payload={})
    return replace(image, rows_=(*image.rows_, lift)), {What.ROW_NOT_IN_LOG}


def bury_first_event(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Bury how an incident was opened, and leave how it ended."""
    first = [at for at, one in enumerate(image.rows_) if one.payload.get("kind") == "opened"]
    known = image.find([image.rows_[at].commitments[-1] for at in first])
    at = rng.choice([at for at in first if image.rows_[at].commitments[-1] in known][:-1])
    place = known[image.rows_[at].commitments[-1]].seq
    stone = tombstone(9, image.leaves_[-1].at, [(place, place + 1)])
    waits = Pending(99, stone.kind, stone.at, stone.commitments)
    changed = replace(image, rows_=(*without(image.rows_, at), stone), pending_=(*image.pending_, waits))
    return changed, {What.INCIDENT_CHANGED}


def bury_last_event(image: Image, rng: random.Random) -> tuple[Image, set[What]]:
    """Bury how an incident was decided, and set its row back to what it was before."""
    decided = [at for at, one in enumerate(image.rows_) if one.payload.get("kind") == "triaged"]
    known = image.find([image.rows_[at].commitments[-1] for at in decided])
    at = rng.choice([at for at in decided if image.rows_[at].commitments[-1] in known])
    gone = image.rows_[at]
    incident = gone.payload["incident_id"]
    place = known[gone.commitments[-1]].seq
    rows = without(image.rows_, at)
    before = IncidentState(incident, 2, "open", "warning", {})
    incidents = tuple(before if one.key == incident else one for one in image.incidents_)
    stone = tombstone(9, image.leaves_[-1].at, [(place, place + 1)])
    # The entry of the access log that was made with the decision.
    values = {"id": "decides", "operation": "change_state", "action": "write", "subject_kind": "incident"}
    payload = payload_of(Kind.ACCESS, values | {"subject_ids": [incident]})
    entered = Row(
        kind=Kind.ACCESS, key="decides", at=image.leaves_[-1].at, salt=entry.new_salt(), payload=payload
    )
    waiting = [
        Pending(98, entered.kind, entered.at, entered.commitments),
        Pending(99, stone.kind, stone.at, stone.commitments),
    ]
    changed = replace(
        image, rows_=(*rows, entered, stone), pending_=(*image.pending_, *waiting), incidents_=incidents
    )
    return changed, {What.INCIDENT_CHANGED}


KINDS: Sequence[Change] = (
    edit_row, edit_salt, cut_trail, delete_row, insert_row, backdate_row, edit_leaf, backdate_leaf,
    delete_leaf, insert_leaf, push_leaf_in, swap_leaves, edit_node, edit_pending, delete_pending,
    insert_pending, backdate_pending, edit_note, edit_copy, delete_note, insert_note, swap_notes, fork,
    widen_tombstone, delete_tombstone, add_tombstone_without_entry, restore_row, bury_standing,
    bury_what_is_to_come, bury_what_nobody_may, miscount, redact_without_tombstone,
    edit_incident, delete_incident, insert_incident, delete_event,
    hide_reader, remove_before_its_time, pass_off, lift_without_entry, bury_first_event, bury_last_event,
)  # fmt: skip


def test_nothing_is_found_on_what_nobody_changed(planted: Image) -> None:
    report = check(planted)

    assert report.findings == []
    assert (report.leaves, report.pending) == (SIGNED, WAITING)
    assert report.rows == len(planted.rows_)
    assert (report.tombstones, report.erased) == (1, len(planted.erased) + 1)


@pytest.mark.parametrize("kind", sorted({Kind.EXPLANATION, Kind.FLAG, Kind.INCIDENT_EVENT}))
def test_an_entry_that_is_both_buried_and_present_is_named(planted: Image, kind: Kind) -> None:
    """Also where every row that the tombstone is of was put back, each state of a flag with it."""
    known = planted.find([one for each in planted.rows_ for one in each.commitments])
    there = next(
        one for one in planted.rows_ if one.kind == kind and all(each in known for each in one.commitments)
    )
    places = sorted(known[one].seq for one in there.commitments)
    stone = tombstone(9, planted.pending_[-1].at, ranges_of(places))

    found = check(with_tombstone(planted, stone)).findings

    assert [(one.what, one.why) for one in found] == [
        (What.TOMBSTONE_OVER_ROW, f"it covers entry {place}, whose row still stands") for place in places
    ]


def test_each_of_a_thousand_changes_is_found_and_named(planted: Image) -> None:
    rng = random.Random(17)  # noqa: S311  # the same changes each time
    named: Counter[What] = Counter()

    for number in range(CHANGES):
        change = KINDS[number % len(KINDS)]
        changed, expected = change(planted, rng)
        found = {one.what for one in check(changed).findings}
        assert expected <= found, (change.__name__, number, expected, found)
        named.update(found)

    # What a witness or an authority has kept is tried with them.
    elsewhere = {What.COSIGNATURE_MISSING, What.SPLIT_VIEW, What.POSTDATED}
    elsewhere |= {What.TIMESTAMP_MISSING, What.TIMESTAMP_UNREADABLE}
    assert set(named) >= set(What) - {What.KIND_CHANGED} - elsewhere
