"""The Merkle tree of RFC 6962 (RFC 9162, section 2.1): hashes, proofs and how to check them. Pure.

A perfect subtree of height h with number i covers the leaves from i * 2**h on; hashes are 32 bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, Protocol

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


class Subtrees(Protocol):
    """Whoever knows the hashes of a tree's perfect subtrees."""

    def subtree(self, height: int, number: int) -> bytes:
        """Return the hash of a perfect subtree that lies within the tree."""


class ProofError(ValueError):
    """A proof that does not hold; the message says how."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf that holds ``data``."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two others."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over these leaf hashes."""
    frontier = Frontier()
    for one in hashes:
        frontier.add(one)
    return frontier.root()


class Frontier:
    """A tree that only grows: the hashes of the perfect subtrees that its size is the sum of."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Go on from a tree of this size; ``peaks`` from the largest subtree to the smallest."""
        self._size = size
        self._peaks = list(peaks)
        self._trail: list[bytes] = []  # of the last leaf: the subtrees that end with it, the lowest first
        if len(self._peaks) != size.bit_count():
            raise ValueError(
                f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(self._peaks)}"
            )

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._size

    @property
    def peaks(self) -> Sequence[bytes]:
        """The hashes of its perfect subtrees, the largest first."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> None:
        """Append a leaf by its hash."""
        size, carried = self._size, leaf
        self._trail = [leaf]
        while size & 1:
            carried = node_hash(self._peaks.pop(), carried)
            self._trail.append(carried)
            size >>= 1
        self._peaks.append(carried)
        self._size += 1

    def add_subtree(self, height: int, subtree: bytes) -> None:
        """Append a perfect subtree of 2 ** height leaves; ValueError where none may begin."""
        if self._size & ((1 << height) - 1):
            raise ValueError(f"no subtree of {1 << height} leaves begins at leaf {self._size}")
        size, carried = self._size >> height, subtree
        while size & 1:
            carried = node_hash(self._peaks.pop(), carried)
            size >>= 1
        self._peaks.append(carried)
        self._size += 1 << height
        self._trail = []  # its leaves are not known

    def completed(self, tile_height: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield level, number and hash of each node at a tile's boundary that the last leaf completed."""
        whole = self._size & -self._size if self._size else 0  # leaves of the smallest peak
        level = 1
        while 1 << (tile_height * level) <= whole:
            height = tile_height * level
            yield level, (self._size >> height) - 1, self._at(height)
            level += 1

    def _at(self, height: int) -> bytes:
        """Return the hash of the subtree of this height that ends with the last leaf."""
        return self._trail[height]

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def frontier_of(tree: Subtrees, size: int) -> Frontier:
    """Return the frontier of the first ``size`` leaves of a tree."""
    return Frontier(size, _peaks(tree, 0, size))


def _peaks(tree: Subtrees, start: int, end: int) -> list[bytes]:
    """Return the perfect subtrees that a range is made of; it must begin where one of its length may."""
    found = []
    while start < end:
        height = (end - start).bit_length() - 1
        found.append(tree.subtree(height, start >> height))
        start += 1 << height
    return found


def following(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield height and number of the perfect subtrees that a range of leaves is made of, in their order."""
    while start < end:
        least = (start & -start).bit_length() - 1 if start else end.bit_length()
        height = min(least, (end - start).bit_length() - 1)
        yield height, start >> height
        start += 1 << height


def range_proof(tree: Subtrees, start: int, end: int, size: int) -> tuple[list[bytes], list[bytes]]:
    """Return the hashes before and behind a range of leaves, from which with them a root follows.

    They are of the perfect subtrees that the leaves before ``start``, and from ``end`` on, are made of:
    compact ranges, as in Trillian's `merkle/compact`. Raises ProofError for a range outside of the tree.
    """
    if not 0 <= start < end <= size:
        raise ProofError(f"there are no leaves {start} to {end - 1} in a tree of {size}")
    behind = [tree.subtree(height, number) for height, number in following(end, size)]
    return _peaks(tree, 0, start), behind


def _range_root(tree: Subtrees, start: int, end: int) -> bytes:
    return Frontier(end - start, _peaks(tree, start, end)).root()


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(tree: Subtrees, index: int, size: int) -> list[bytes]:
    """Return the audit path of a leaf in the tree of ``size`` leaves (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(tree, middle, end))
            end = middle
        else:
            path.append(_range_root(tree, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(tree: Subtrees, old: int, new: int) -> list[bytes]:
    """Return the proof that the first ``old`` of ``new`` leaves are the old tree (RFC 9162, 2.1.4.1)."""
    if not 0 < old <= new:
        raise ProofError(f"there is no proof from a tree of {old} leaves to one of {new}")
    proof: list[bytes] = []
    start, end, is_whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_root(tree, middle, end))
            end = middle
        else:
            proof.append(_range_root(tree, start, middle))
            start, is_whole = middle, False
    if not is_whole:
        proof.append(_range_root(tree, start, end))
    return proof[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofError unless the proof leads from the leaf's hash to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    first, last, found = index, size - 1, leaf
    for one in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if first & 1 or first == last:
            found = node_hash(one, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, one)
        first, last = first >> 1, last >> 1
    if last or found != root:
        raise ProofError(f"the inclusion proof of leaf {index} does not lead to the root")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ProofError unless the proof shows the old tree within the new (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        raise ProofError(f"a tree of {old} leaves does not grow into one of {new}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError(f"two trees of {old} leaves have different roots")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the consistency proof is empty")
    if _walk(old, new, path) != (old_root, new_root):
        raise ProofError(f"the tree of {old} leaves is not the beginning of the one of {new}")


def _walk(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return the roots of both trees that a consistency proof leads to, None when it leads to none."""
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    of_old = of_new = path[0]
    for one in path[1:]:
        if last == 0:
            return None
        if first & 1 or first == last:
            of_old, of_new = node_hash(one, of_old), node_hash(one, of_new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            of_new = node_hash(of_new, one)
        first, last = first >> 1, last >> 1
    return None if last else (of_old, of_new)
