"""A thousand random single changes of a bundle, each found and named; and a verifier that is not ours."""

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from proofbundle import checkpoint as foreign_checkpoint
from proofbundle import merkle as foreign_merkle

from service.evidence import merkle, note
from service.evidence.bundle.archive import written
from service.evidence.bundle.check import check
from service.evidence.bundle.finding import Report, What
from service.evidence.bundle.layout import FILES, LEAVES, MANIFEST, PATHS, PROOF, WITHHELD
from service.evidence.entry import entry_bytes, moment
from service.evidence.note import Checkpoint
from service.verifying import run
from tests.support import bundles
from tests.support.bundles import Packed, Wish

CHANGES = 1000
FLIPS = 150
EARLIER = 20
Members = dict[str, bytes]
ROWS = [FILES[kind] for kind in ("explanation", "flag", "incident_event", "access", "decoder")]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return bundles.packed_of(tmp_path_factory.mktemp("bundle") / "whole.zip", Wish(earlier=EARLIER))


def lines_of(members: Mapping[str, bytes], name: str) -> list[bytes]:
    return members[name].splitlines()


def joined(lines: list[bytes]) -> bytes:
    return b"".join(one + b"\n" for one in lines)


def pick(members: Mapping[str, bytes], rng: random.Random) -> tuple[str, list[bytes], int]:
    name = rng.choice(ROWS)
    lines = lines_of(members, name)
    # The first decoder is older than the period, which is complete without it.
    return name, lines, rng.randrange(name == "decoders.ndjson", len(lines))


Change = Callable[[Packed, Members, random.Random], set[What]]


def edit_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, at = pick(members, rng)
    row = json.loads(lines[at])
    key = rng.choice(sorted(set(row["payload"]) - {"sample", "matches", "trail", "details"}))
    value = row["payload"][key]
    row["payload"][key] = value + 1 if isinstance(value, int | float) else f"{value}x"
    lines[at] = written(row)
    members[name] = joined(lines)
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def edit_salt(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, at = pick(members, rng)
    lines[at] = written({**json.loads(lines[at]), "salt": rng.choice([None, rng.randbytes(16).hex()])})
    members[name] = joined(lines)
    return {What.ROW_CHANGED, What.ENTRY_WITHOUT_ROW}


def disown_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Say that a row is from before the log."""
    name, lines, at = pick(members, rng)
    lines[at] = written({"entry": None, "salt": None, "payload": json.loads(lines[at])["payload"]})
    members[name] = joined(lines)
    return {What.ENTRY_WITHOUT_ROW, What.FILE_CHANGED}


def delete_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, at = pick(members, rng)
    members[name] = joined(lines[:at] + lines[at + 1 :])
    return {What.ENTRY_WITHOUT_ROW, What.FILE_CHANGED}


def repeat_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, at = pick(members, rng)
    members[name] = joined([*lines, lines[at]])
    return {What.ROW_REPEATED, What.FILE_CHANGED}


def insert_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, at = pick(members, rng)
    row = json.loads(lines[at])
    row["payload"]["id"] = str(uuid.UUID(bytes=rng.randbytes(16)))
    members[name] = joined([*lines[:at], written(row), *lines[at:]])
    return {What.ROW_CHANGED, What.FILE_CHANGED}


def swap_rows(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, lines, _ = pick(members, rng)
    one, other = rng.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    members[name] = joined(lines)
    return {What.FILE_CHANGED}


def swap_entries(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Let two rows name each other's entry."""
    name, lines, _ = pick(members, rng)
    one, other = rng.sample(range(len(lines)), 2)
    first, second = json.loads(lines[one]), json.loads(lines[other])
    first["entry"], second["entry"] = second["entry"], first["entry"]
    lines[one], lines[other] = written(first), written(second)
    members[name] = joined(lines)
    return {What.ROW_CHANGED}


def rewrite_line(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Write the same otherwise."""
    name, lines, at = pick(members, rng)
    lines[at] = json.dumps(json.loads(lines[at])).encode()
    members[name] = joined(lines)
    return {What.ROW_UNREADABLE, What.FILE_CHANGED}


def edit_leaf(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    lines = lines_of(members, LEAVES)
    at = rng.randrange(len(lines))
    told = json.loads(lines[at])
    when = datetime.fromisoformat(told["at"])
    commitment = bytes.fromhex(told["commitment"])
    lines[at] = rng.choice(
        [
            entry_bytes(told["kind"], when, rng.randbytes(32)),
            entry_bytes("canary", when, commitment),
            entry_bytes(told["kind"], when + timedelta(microseconds=rng.choice([-1, 1])), commitment),
        ]
    )
    members[LEAVES] = joined(lines)
    return {What.ENTRIES_CHANGED}


def backdate_leaf(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    lines = lines_of(members, LEAVES)
    at = rng.randrange(1, len(lines))
    told = json.loads(lines[at])
    told["at"] = moment(datetime.fromisoformat(told["at"]) - rng.uniform(2, 99) * timedelta(hours=1))
    lines[at] = written(told)
    members[LEAVES] = joined(lines)
    return {What.ENTRIES_CHANGED, What.BACKDATED}


def delete_leaf(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    lines = lines_of(members, LEAVES)
    del lines[rng.randrange(len(lines))]
    members[LEAVES] = joined(lines)
    return {What.ENTRIES_CHANGED}


def insert_leaf(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    lines = lines_of(members, LEAVES)
    told = json.loads(rng.choice(lines))
    new = entry_bytes(told["kind"], datetime.fromisoformat(told["at"]), rng.randbytes(32))
    members[LEAVES] = joined([*lines, new])
    return {What.ENTRIES_CHANGED}


def swap_leaves(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    lines = lines_of(members, LEAVES)
    one, other = rng.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    members[LEAVES] = joined(lines)
    return {What.ENTRIES_CHANGED}


def narrow(packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Leave out entries at one end, with a proof that leads from the rest to the root."""
    proof, lines = json.loads(members[PROOF]), lines_of(members, LEAVES)
    cut = rng.randrange(5, len(lines) // 2)
    first, end = proof["first"], proof["first"] + len(lines)
    first, end, lines = rng.choice([(first + cut, end, lines[cut:]), (first, end - cut, lines[:-cut])])
    size = len(packed.log.leaves)
    before, behind = merkle.range_proof(bundles.Hashes(packed.log.leaves), first, end, size)
    proof |= {"first": first, "before": [one.hex() for one in before]}
    members[PROOF] = written({**proof, "behind": [one.hex() for one in behind]})
    members[LEAVES] = joined(lines)
    return {What.PERIOD_NOT_COVERED}


def edit_hash(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    proof = json.loads(members[PROOF])
    side = rng.choice(["before", "behind"])
    hashes = proof[side]
    at = rng.randrange(len(hashes))
    proof[side] = rng.choice(
        [
            [*hashes[:at], rng.randbytes(32).hex(), *hashes[at + 1 :]],
            hashes[:at] + hashes[at + 1 :],
            [*hashes, rng.randbytes(32).hex()],
        ]
    )
    members[PROOF] = written(proof)
    return {What.ENTRIES_CHANGED}


def forge_checkpoint(packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Put in one that another key has signed, or one whose text was changed."""
    proof = json.loads(members[PROOF])
    signed = note.read_checkpoint(packed.log.signer.verifier.open(proof["checkpoint"]))
    forger = note.generate(packed.log.signer.name)
    proof["checkpoint"] = rng.choice(
        [
            forger.sign(signed.text()),
            proof["checkpoint"].replace(f"\n{signed.size}\n", f"\n{signed.size + 1}\n"),
        ]
    )
    members[PROOF] = written(proof)
    return {What.CHECKPOINT_UNREADABLE}


def other_checkpoint(packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Put in an older one, or one of another history by whoever has the key."""
    proof, size = json.loads(members[PROOF]), len(packed.log.leaves)
    proof["checkpoint"] = rng.choice(
        [
            packed.log.checkpoint(rng.randrange(EARLIER + 1, size)),
            packed.log.signer.sign(Checkpoint(packed.log.origin, size, rng.randbytes(32)).text()),
        ]
    )
    members[PROOF] = written(proof)
    return {What.ENTRIES_CHANGED}


def edit_seal(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    proof = json.loads(members[PROOF])
    seal = proof["seal"]
    match rng.randrange(4):
        case 0:
            seal["salt"] = rng.randbytes(16).hex()
        case 1:
            seal["payload"]["details"]["manifest_sha256"] = rng.randbytes(32).hex()
        case 2:
            seal["entry"] -= rng.randrange(1, 50)
        case _:
            seal["path"] = proof["before"]
    members[PROOF] = written(proof)
    return {What.MANIFEST_CHANGED}


def forge_manifest(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Change a row or the coverage, and let the manifest agree."""
    name = rng.choice([*ROWS, "coverage.json"])
    lines = lines_of(members, name) if name in ROWS else []
    members[name] = joined(lines[1:]) if lines else written({"seen": rng.randrange(99), "sampled": 99})
    manifest = json.loads(members[MANIFEST])
    manifest["files"][name]["sha256"] = sha256(members[name]).hexdigest()
    members[MANIFEST] = written(manifest)
    return {What.MANIFEST_CHANGED}


def edit_manifest(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    manifest = json.loads(members[MANIFEST])
    match rng.randrange(4):
        case 0:
            manifest["query"]["to"] = manifest["query"]["from"]
        case 1:
            manifest["query"]["kinds"].remove("flag")
        case 2:
            manifest["export"] = str(uuid.UUID(bytes=rng.randbytes(16)))
        case _:
            manifest["files"]["coverage.json"]["rows"] = 7
    members[MANIFEST] = written(manifest)
    return {What.MANIFEST_CHANGED}


def withhold_row(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    """Take a row out and say that it was out of scope."""
    name, lines, at = pick(members, rng)
    entry = json.loads(lines[at])["entry"]
    members[name] = joined(lines[:at] + lines[at + 1 :])
    members[WITHHELD] += written({"entry": entry, "reason": "out_of_scope"}) + b"\n"
    return {What.FILE_CHANGED}


def edit_coverage(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    members["coverage.json"] = written({"seen": rng.randrange(100, 999), "sampled": 3})
    return {What.FILE_CHANGED}


def edit_earlier(packed: Packed, members: Members, rng: random.Random) -> set[What]:
    proof = json.loads(members[PROOF])
    match rng.randrange(3):
        case 0:
            proof["earlier"]["path"][rng.randrange(3)] = rng.randbytes(32).hex()
        case 1:
            proof["earlier"]["checkpoint"] = packed.log.checkpoint(EARLIER + rng.randrange(1, 9))
        case _:
            del proof["earlier"]
    members[PROOF] = written(proof)
    return {What.EARLIER_TREE_CHANGED}


def edit_path(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    [line] = lines_of(members, PATHS)
    told = json.loads(line)
    match rng.randrange(3):
        case 0:
            told["path"][rng.randrange(len(told["path"]))] = rng.randbytes(32).hex()
        case 1:
            told["at"] = moment(datetime.fromisoformat(told["at"]) - timedelta(hours=1))
        case _:
            told["entry"] += 1
    members[PATHS] = written(told) + b"\n"
    return {What.ROW_CHANGED}


def delete_member(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    del members[rng.choice([*ROWS, WITHHELD, "coverage.json", LEAVES, PATHS, MANIFEST, PROOF])]
    return {What.MEMBER_UNREADABLE}


def add_member(_packed: Packed, members: Members, rng: random.Random) -> set[What]:
    name, expected = rng.choice(
        [("more.json", What.MEMBER_UNEXPECTED), ("readme.txt", What.ARCHIVE_DAMAGED)]
    )
    members[name] = b"{}"
    return {expected}


KINDS: tuple[Change, ...] = (
    edit_row, edit_salt, disown_row, delete_row, repeat_row, insert_row, swap_rows, swap_entries,
    rewrite_line, edit_leaf, backdate_leaf, delete_leaf, insert_leaf, swap_leaves, narrow, edit_hash,
    forge_checkpoint, other_checkpoint, edit_seal, forge_manifest, edit_manifest, withhold_row,
    edit_coverage, edit_earlier, edit_path, delete_member, add_member,
)  # fmt: skip


def verified(packed: Packed, file: Path) -> Report:
    return check(file, packed.log.signer.verifier, packed.log.checkpoint(EARLIER))


def test_nothing_is_found_in_a_bundle_that_nobody_changed(packed: Packed) -> None:
    report = verified(packed, packed.file)

    assert report.findings == []
    assert (report.rows_opened, report.entries_in_period) == (34, 36)
    assert report.tree_size == len(packed.log.leaves)


def test_each_of_a_thousand_changes_is_found_and_named(packed: Packed, tmp_path: Path) -> None:
    rng = random.Random(17)  # noqa: S311  # the same changes each time
    named: Counter[What] = Counter()

    for number in range(CHANGES):
        change = KINDS[number % len(KINDS)]
        members = dict(packed.members)
        expected = change(packed, members, rng)
        report = verified(packed, bundles.rewrite(tmp_path / "changed.zip", members))
        found = {one.what for one in report.findings}
        assert expected <= found, (change.__name__, number, expected, report.findings[:5])
        named.update(found)

    # Tombstones are tried in test_bundle_tombstones.py.
    assert set(named) >= {one for one in What if one != What.ROW_MISSING and "tombstone" not in one}


def test_a_file_that_was_cut_is_named(packed: Packed, tmp_path: Path) -> None:
    whole, cut = packed.file.read_bytes(), tmp_path / "cut.zip"
    rng = random.Random(3)  # noqa: S311

    for size in [0, 1, len(whole) - 1, *rng.sample(range(len(whole)), 20)]:
        cut.write_bytes(whole[:size])
        first = verified(packed, cut).findings[0]
        assert (first.what, first.place.member) == (What.ARCHIVE_DAMAGED, "cut.zip")


def test_a_byte_that_was_changed_is_found_or_changes_nothing_that_is_read(
    packed: Packed, tmp_path: Path
) -> None:
    whole, changed = packed.file.read_bytes(), tmp_path / "changed.zip"
    rng = random.Random(5)  # noqa: S311

    for at in rng.sample(range(len(whole)), FLIPS):
        changed.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        if not verified(packed, changed).findings:
            assert bundles.members_of(changed) == packed.members


def test_a_changed_row_is_named_first_by_file_line_and_id(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key.pub"
    key.write_text(packed.log.signer.verifier.encode() + "\n")
    members = dict(packed.members)
    lines = lines_of(members, "explanations.ndjson")
    row = json.loads(lines[4])
    row["payload"]["text"] = "nothing to see"
    lines[4] = written(row)
    members["explanations.ndjson"] = joined(lines)
    changed = bundles.rewrite(tmp_path / "changed.zip", members)

    assert run([str(packed.file), "--key", str(key)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["findings"], told["rows_opened"], told["entries_of_period"]) == (0, 34, 36)

    assert run([str(changed), "--key", str(key)]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"row_changed  explanations.ndjson line 5, row {row['payload']['id']}: ")
    assert f"entry {row['entry']}" in first


def test_the_command_says_what_it_cannot_use(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(packed.file), "--key", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    key = tmp_path / "key.pub"
    key.write_text(note.generate("subtext.example").verifier.encode())

    assert run([str(packed.file), "--key", str(key)]) == 1
    assert capsys.readouterr().out.startswith("checkpoint_unreadable  proof.json: ")


def test_what_is_withheld_is_counted_and_what_the_store_lacked_is_a_finding(tmp_path: Path) -> None:
    log = bundles.plant()
    inside = [line.entry for kind, at, line in log.rows if kind == "explanation" and at >= bundles.START]
    scoped, lost = inside[0], inside[1]
    assert scoped is not None
    assert lost is not None
    wish = Wish(withheld=[{"entry": scoped, "reason": "out_of_scope"}], without=frozenset({scoped}))
    report = check(bundles.pack(log, tmp_path / "whole.zip", wish), log.signer.verifier)
    assert [one.what for one in report.findings] == [What.ROW_MISSING]  # it was restricted to no model
    wish = replace(wish, model="m")
    report = check(bundles.pack(log, tmp_path / "scoped.zip", wish), log.signer.verifier)
    assert (report.findings, report.withheld) == ([], {"out_of_scope": 1})

    wish = Wish(withheld=[{"entry": lost, "reason": "missing"}], without=frozenset({lost}))
    report = check(bundles.pack(log, tmp_path / "lost.zip", wish), log.signer.verifier)
    assert [one.what for one in report.findings] == [What.ROW_MISSING]

    wish = Wish(withheld=[{"entry": lost, "reason": "erased", "by": 3}], without=frozenset({lost}))
    report = check(bundles.pack(log, tmp_path / "erased.zip", wish), log.signer.verifier)
    assert [one.what for one in report.findings] == [What.ROW_MISSING]


def test_without_text_the_entries_of_explanations_stay_closed(tmp_path: Path) -> None:
    log = bundles.plant()
    file = bundles.pack(log, tmp_path / "closed.zip", Wish(with_text=False))

    report = check(file, log.signer.verifier)

    assert report.findings == []
    assert (report.rows_opened, report.rows_without_text) == (22, 12)
    assert b"reading" not in bundles.members_of(file)["explanations.ndjson"]


def test_kinds_that_were_not_asked_for_are_counted(tmp_path: Path) -> None:
    log = bundles.plant()

    report = check(bundles.pack(log, tmp_path / "flags.zip", Wish(kinds=["flag"])), log.signer.verifier)

    assert report.findings == []
    assert (report.rows_opened, report.entries_in_period) == (3, 36)
    assert report.of_other_kinds == {"access": 6, "decoder": 6, "explanation": 12, "incident_event": 6}


def test_a_verifier_that_is_not_ours_checks_signature_entries_and_seal(packed: Packed) -> None:
    """proofbundle, by other authors, has its own RFC 6962 and its own signed notes."""
    proof = json.loads(packed.members[PROOF])
    signed = foreign_checkpoint.verify_checkpoint(proof["checkpoint"], packed.log.signer.verifier.encode())
    root = foreign_checkpoint.root_bytes_from_b64(proof["checkpoint"].split("\n")[2])

    assert signed["ok"] is True
    assert (signed["origin"], signed["tree_size"]) == (packed.log.origin, len(packed.log.leaves))
    assert foreign_merkle.merkle_tree_hash(packed.log.leaves) == root
    seal = proof["seal"]
    leaf = packed.log.leaves[seal["entry"]]
    path = [bytes.fromhex(one) for one in seal["path"]]
    assert foreign_merkle.verify_inclusion(leaf, seal["entry"], signed["tree_size"], path, root)
    assert not foreign_merkle.verify_inclusion(leaf + b" ", seal["entry"], signed["tree_size"], path, root)
    for number, line in enumerate(lines_of(packed.members, LEAVES), proof["first"]):
        own = merkle.inclusion_proof(bundles.Hashes(packed.log.leaves), number, signed["tree_size"])
        assert foreign_merkle.verify_inclusion(line, number, signed["tree_size"], own, root)
