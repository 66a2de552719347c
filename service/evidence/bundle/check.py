"""Hold a bundle against a public key, with nothing else at hand, and name all that does not fit.

1. The checkpoint is signed by the key, and its entries lead to its root.
2. The seal is an entry of the same tree and holds the SHA-256 of the manifest, which is thereby signed.
3. The period is covered: no entry of it can be missing before or behind those that are here.
4. Each row opens its entry; each entry of the period has a row or a reason; each member is the manifest's.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from service.evidence import merkle
from service.evidence.bundle import entries as entries_of
from service.evidence.bundle import proof as proofs
from service.evidence.bundle.archive import Archive, ArchiveError, parsed
from service.evidence.bundle.entries import Entries
from service.evidence.bundle.finding import Place, Report, What
from service.evidence.bundle.layout import (
    FILES,
    LEAVES,
    MANIFEST,
    PATHS,
    PROOF,
    SEAL_DETAIL,
    WITHHELD,
    Query,
    RowFormat,
    ShapeError,
    member_of,
    read_query,
)
from service.evidence.bundle.proof import Proof
from service.evidence.bundle.rows import Accounts, Paths
from service.evidence.entry import TRANSACTION_TIME, commit, entry_bytes, moment
from service.evidence.note import Checkpoint, NoteError, Verifier, read_checkpoint
from service.evidence.payloads import Kind

_KINDS: Final = {member_of(kind, form): kind for kind in FILES for form in RowFormat}


class _StopError(Exception):
    """What was reported leaves nothing to hold the rest against."""


def check(file: Path, verifier: Verifier, earlier: str | None = None) -> Report:
    """Return what does not fit in a bundle, the first thing first.

    ``earlier`` is a checkpoint that was kept from before: then the bundle must prove that its log grew out
    of that one.
    """
    report = Report()
    try:
        archive = Archive(file)
    except ArchiveError as error:
        report.add(What.ARCHIVE_DAMAGED, Place(error.member), str(error))
        return report
    try:
        _check(archive, verifier, earlier, report)
    except ArchiveError as error:
        report.add(What.MEMBER_UNREADABLE, Place(error.member), str(error))
    except _StopError:
        pass
    finally:
        archive.close()
    return report


def _check(archive: Archive, verifier: Verifier, earlier: str | None, report: Report) -> None:
    proof = _proof(archive, report)
    checkpoint = _signed(verifier, proof.note, report)
    report.tree_size, report.log = checkpoint.size, checkpoint.origin
    _check_earlier(verifier, proof, checkpoint, earlier, report)
    entries = entries_of.read(archive, proof, checkpoint, report)
    manifest, query = _sealed_manifest(archive, proof, checkpoint, report)
    if manifest.get("log") != checkpoint.origin:
        report.add(What.MANIFEST_CHANGED, Place(MANIFEST), f"it is not of the log {checkpoint.origin}")
    report.period = moment(query.start), moment(query.end)
    _check_seal_time(proof, query, report)
    entries_of.check_period(entries, query, proof.seal.entry or 0, report)
    accounts = Accounts(entries, Paths(archive, report), checkpoint, query, report)
    _check_members(archive, manifest, accounts, entries, report)


def _proof(archive: Archive, report: Report) -> Proof:
    try:
        return proofs.read(parsed(archive.read(PROOF)))
    except ValueError as error:  # also of its shape; an ArchiveError names its member
        if isinstance(error, ArchiveError):
            raise
        report.add(What.MEMBER_UNREADABLE, Place(PROOF), str(error))
        raise _StopError from error


def _signed(verifier: Verifier, note: str, report: Report) -> Checkpoint:
    try:
        return read_checkpoint(verifier.open(note))
    except NoteError as error:
        report.add(What.CHECKPOINT_UNREADABLE, Place(PROOF), str(error))
        raise _StopError from error


def _check_earlier(
    verifier: Verifier, proof: Proof, checkpoint: Checkpoint, wanted: str | None, report: Report
) -> None:
    place = Place(PROOF)
    if proof.earlier is None:
        if wanted is not None:
            why = "the bundle has no proof that its log grew out of an earlier checkpoint: ask for one"
            report.add(What.EARLIER_TREE_CHANGED, place, why)
        return
    try:
        before = read_checkpoint(verifier.open(proof.earlier.note))
        given = before if wanted is None else read_checkpoint(verifier.open(wanted))
        merkle.check_consistency(
            before.size, before.root, checkpoint.size, checkpoint.root, proof.earlier.path
        )
    except (NoteError, merkle.ProofError) as error:
        report.add(What.EARLIER_TREE_CHANGED, place, str(error))
        return
    if given != before:
        why = "the bundle's earlier checkpoint is not the one that was given"
        report.add(What.EARLIER_TREE_CHANGED, place, why)
    if before.origin != checkpoint.origin:
        report.add(What.EARLIER_TREE_CHANGED, place, f"it is of another log, {before.origin}")


def _sealed_manifest(
    archive: Archive, proof: Proof, checkpoint: Checkpoint, report: Report
) -> tuple[Mapping[str, Any], Query]:
    content = archive.read(MANIFEST)
    try:
        _check_seal(proof, checkpoint, sha256(content).hexdigest())
    except (merkle.ProofError, ShapeError) as error:
        report.add(What.MANIFEST_CHANGED, Place(MANIFEST), str(error))
    try:
        manifest = parsed(content)
        query = read_query(manifest)
        if not isinstance(manifest.get("files"), dict):
            raise ShapeError("it names no files")
    except ValueError as error:
        report.add(What.MANIFEST_CHANGED, Place(MANIFEST), str(error))
        raise _StopError from error
    return manifest, query


def _check_seal(proof: Proof, checkpoint: Checkpoint, digest: str) -> None:
    """Raise unless the seal is an entry of the signed tree that holds this digest."""
    seal = proof.seal
    if seal.entry is None or seal.salt is None or seal.at is None or seal.path is None:
        raise ShapeError("the seal has no entry, salt, time or proof")
    leaf = merkle.leaf_hash(entry_bytes(Kind.ACCESS, seal.at, commit(seal.salt, seal.payload)))
    try:
        merkle.check_inclusion(leaf, seal.entry, checkpoint.size, seal.path, checkpoint.root)
    except merkle.ProofError as error:
        raise ShapeError(f"the seal in {PROOF} is no entry of the signed log: {error}") from error
    details = seal.payload.get("details")
    if seal.payload.get("action") != "export" or not isinstance(details, dict):
        raise ShapeError("the entry that should be the seal is of no export")
    if details.get(SEAL_DETAIL) != digest:
        raise ShapeError(
            f"its SHA-256 is {digest}, and the log has {details.get(SEAL_DETAIL)} for this export"
        )


def _check_seal_time(proof: Proof, query: Query, report: Report) -> None:
    at = proof.seal.at
    if at is not None and at < query.end + TRANSACTION_TIME:
        why = f"it was sealed at {at}; for {TRANSACTION_TIME} after the period entries of it can still come"
        report.add(What.PERIOD_NOT_COVERED, Place(MANIFEST), why)


def _check_members(
    archive: Archive, manifest: Mapping[str, Any], accounts: Accounts, entries: Entries, report: Report
) -> None:
    files: Mapping[str, Any] = manifest["files"]
    for name in sorted(archive.names - set(files) - {LEAVES, PATHS, MANIFEST, PROOF}):
        report.add(What.MEMBER_UNEXPECTED, Place(name), "the manifest does not know it")
    # Tombstones first: what is withheld refers to them.
    for name in sorted(files, key=lambda one: (one == WITHHELD, one)):
        if name not in archive.names:
            report.add(What.MEMBER_UNREADABLE, Place(name), "the manifest has it and the bundle has not")
            continue
        digest = _read_member(archive, name, accounts)
        wanted = files[name].get("sha256") if isinstance(files[name], dict) else None
        if digest != wanted:
            report.add(What.FILE_CHANGED, Place(name), f"its SHA-256 is {digest}, not {wanted}")
    if entries.end > entries.first:
        accounts.close()


def _read_member(archive: Archive, name: str, accounts: Accounts) -> str:
    if name == WITHHELD:
        return accounts.read_withheld(archive)
    kind = _KINDS.get(name)
    if kind is None:
        return archive.digest(name)
    if name == member_of(kind, RowFormat.PARQUET):
        return accounts.read_table(archive, name, kind)
    return accounts.read(archive, name, kind)
