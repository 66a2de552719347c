"""A bundle's proof: the checkpoint, what leads from entries to its root, and the manifest's seal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.evidence import merkle
from service.evidence.bundle.layout import Line, ShapeError, line_of, read_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A checkpoint of before, and the proof that the log of today begins with its tree."""

    note: str
    path: Sequence[bytes]
    """The consistency proof (RFC 9162, 2.1.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What ties the entries and the manifest to a signature."""

    note: str
    """The checkpoint (C2SP)."""
    first: int
    """The place of the first entry in the bundle."""
    before: Sequence[bytes]
    behind: Sequence[bytes]
    """The hashes on either side of the entries; see `merkle.range_proof`."""
    seal: Line
    """The export's own entry, with time and inclusion proof."""
    earlier: Earlier | None = None


def told(proof: Proof) -> dict[str, Any]:
    """Return the proof as its member says it."""
    made: dict[str, Any] = {
        "checkpoint": proof.note,
        "first": proof.first,
        "before": [one.hex() for one in proof.before],
        "behind": [one.hex() for one in proof.behind],
        "seal": line_of(proof.seal),
    }
    if proof.earlier is not None:
        path = [one.hex() for one in proof.earlier.path]
        made["earlier"] = {"checkpoint": proof.earlier.note, "path": path}
    return made


def read(told: Any) -> Proof:
    """Return the proof that a member says; ShapeError when it says none."""
    try:
        if set(told) - {"earlier"} != {"checkpoint", "first", "before", "behind", "seal"}:
            raise ShapeError("it has not exactly what a proof has")
        if type(told["first"]) is not int or told["first"] < 0 or not isinstance(told["checkpoint"], str):
            raise ShapeError("its first entry or its checkpoint is none")
        return Proof(
            note=told["checkpoint"],
            first=told["first"],
            before=_hashes(told["before"]),
            behind=_hashes(told["behind"]),
            seal=read_line(told["seal"]),
            earlier=_earlier(told.get("earlier")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ShapeError(f"it is no proof: {error!r}") from error


def _earlier(told: Mapping[str, Any] | None) -> Earlier | None:
    if told is None:
        return None
    if not isinstance(told["checkpoint"], str):
        raise ShapeError("its earlier checkpoint is none")
    return Earlier(note=told["checkpoint"], path=_hashes(told["path"]))


def _hashes(told: Sequence[str]) -> list[bytes]:
    try:
        found = [bytes.fromhex(one) for one in told]
    except ValueError as error:
        raise ShapeError("it has a hash that is none") from error
    if any(len(one) != merkle.HASH_BYTES for one in found):
        raise ShapeError("it has a hash that is not of 32 bytes")
    return found


def root_from(leaves: merkle.Frontier, behind: Sequence[bytes], size: int) -> bytes:
    """Return the root that the leaves lead to, whose frontier went on from what is before them.

    Raises ProofError when there are more or fewer hashes than there must be behind them.
    """
    missing = list(merkle.following(leaves.size, size))
    if len(missing) != len(behind):
        raise merkle.ProofError(
            f"behind entry {leaves.size - 1} there are {len(missing)} hashes to know, not {len(behind)}"
        )
    whole = merkle.Frontier(leaves.size, leaves.peaks)
    for (height, _), one in zip(missing, behind, strict=True):
        whole.add_subtree(height, one)
    return whole.root()
