"""Tree and proofs against the vectors of Certificate Transparency, and against every small tree."""

import pytest

from service.evidence import merkle

# certificate-transparency-go, merkle/testonly: leaves, and the root over the first n of them.
LEAVES = [
    bytes.fromhex(one)
    for one in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
FIRST_OF_EIGHT = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
SIX_IN_EIGHT = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]


class Known:
    """Subtrees of leaves that are all at hand."""

    def __init__(self, hashes: list[bytes]) -> None:
        self.hashes = hashes

    def subtree(self, height: int, number: int) -> bytes:
        return merkle.root_of(self.hashes[number << height : (number + 1) << height])


def hashes(count: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes([number])) for number in range(count)]


def vectors() -> Known:
    return Known([merkle.leaf_hash(leaf) for leaf in LEAVES])


def changed(proof: list[bytes]) -> list[list[bytes]]:
    flipped = [
        [*proof[:at], one[:-1] + bytes([one[-1] ^ 1]), *proof[at + 1 :]] for at, one in enumerate(proof)
    ]
    return [*flipped, proof[:-1], [*proof, proof[-1]]]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root_of(vectors().hashes[:size]).hex() == ROOTS[size]


def test_proofs_are_those_of_certificate_transparency() -> None:
    assert [one.hex() for one in merkle.inclusion_proof(vectors(), 0, 8)] == FIRST_OF_EIGHT
    assert [one.hex() for one in merkle.consistency_proof(vectors(), 6, 8)] == SIX_IN_EIGHT


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_every_leaf_is_proven_and_no_changed_proof_holds(size: int) -> None:
    tree = Known(hashes(size))
    root = merkle.root_of(tree.hashes)

    for index, leaf in enumerate(tree.hashes):
        proof = merkle.inclusion_proof(tree, index, size)
        merkle.check_inclusion(leaf, index, size, proof, root)
        for wrong in changed(proof) if proof else []:
            with pytest.raises(merkle.ProofError):
                merkle.check_inclusion(leaf, index, size, wrong, root)
        with pytest.raises(merkle.ProofError):
            merkle.check_inclusion(leaf, index + 1, size, proof, root)


@pytest.mark.parametrize("new", [1, 2, 3, 7, 8, 13])
def test_every_smaller_tree_is_proven_and_no_changed_proof_holds(new: int) -> None:
    tree = Known(hashes(new))
    new_root = merkle.root_of(tree.hashes)

    for old in range(1, new + 1):
        old_root = merkle.root_of(tree.hashes[:old])
        proof = merkle.consistency_proof(tree, old, new)
        merkle.check_consistency(old, old_root, new, new_root, proof)
        for wrong in changed(proof) if proof else [[new_root]]:
            with pytest.raises(merkle.ProofError):
                merkle.check_consistency(old, old_root, new, new_root, wrong)
        with pytest.raises(merkle.ProofError):
            merkle.check_consistency(old, bytes(32), new, new_root, proof)


def test_a_frontier_goes_on_where_another_stopped() -> None:
    tree = Known(hashes(21))

    frontier = merkle.frontier_of(tree, 13)
    for leaf in tree.hashes[13:]:
        frontier.add(leaf)

    assert (frontier.size, frontier.root()) == (21, merkle.root_of(tree.hashes))


def test_what_no_tree_has_is_refused() -> None:
    with pytest.raises(merkle.ProofError, match="no leaf 3"):
        merkle.inclusion_proof(Known(hashes(3)), 3, 3)
    with pytest.raises(merkle.ProofError, match="no proof from"):
        merkle.consistency_proof(Known(hashes(3)), 0, 3)
    with pytest.raises(merkle.ProofError, match="does not grow"):
        merkle.check_consistency(4, bytes(32), 3, bytes(32), [])
    with pytest.raises(merkle.ProofError, match="is empty"):
        merkle.check_consistency(3, bytes(32), 4, bytes(32), [])
    with pytest.raises(ValueError, match="peaks"):
        merkle.Frontier(3, [bytes(32)])


@pytest.mark.parametrize("size", range(1, 34))
def test_every_range_leads_to_the_root_with_the_hashes_on_either_side(size: int) -> None:
    tree = Known(hashes(size))
    for start in range(size):
        for end in range(start + 1, size + 1):
            before, behind = merkle.range_proof(tree, start, end, size)
            frontier = merkle.Frontier(start, before)
            for one in tree.hashes[start:end]:
                frontier.add(one)
            missing = list(merkle.following(end, size))
            assert len(missing) == len(behind)
            for (height, number), one in zip(missing, behind, strict=True):
                assert number << height == frontier.size
                frontier.add_subtree(height, one)
            assert (frontier.size, frontier.root()) == (size, merkle.root_of(tree.hashes))


def test_a_subtree_begins_only_where_one_of_its_height_may() -> None:
    frontier = merkle.Frontier()
    frontier.add(hashes(1)[0])

    with pytest.raises(ValueError, match="no subtree of 2 leaves begins at leaf 1"):
        frontier.add_subtree(1, hashes(1)[0])
    with pytest.raises(merkle.ProofError, match="no leaves 1 to 0"):
        merkle.range_proof(Known(hashes(2)), 1, 1, 2)
