"""The evidence log as answered: where an entry stands and what proves it."""

import base64
import datetime as dt

from pydantic import Field

from service.api.schemas.answer import Answer
from service.store.evidence.proof import Proof


class LogEntry(Answer):
    """A leaf of the log, without the row that it commits to."""

    seq: int = Field(description="Its place, from 0.", examples=[1041])
    kind: str = Field(description="Of what it is an entry.")
    at: dt.datetime = Field(description="When the transaction of its row began, by the database's clock.")
    commitment: str = Field(description="HMAC-SHA256 by the row's salt over the row, in hexadecimal.")
    leaf_hash: str = Field(description="Its hash in the tree (RFC 6962), in base64.")


class LogProof(Answer):
    """An entry with the proof that the newest signed tree holds it."""

    entry: LogEntry
    inclusion_proof: list[str] = Field(
        description="The audit path (RFC 9162, 2.1.3), in base64, leaf first."
    )
    tree_size: int = Field(description="Entries of the signed tree.", examples=[1200])
    root: str = Field(
        description="Its root as the stored tree has it, in base64; the checkpoint says the same."
    )
    checkpoint: str = Field(description="The signed note (C2SP) of that tree, to check by the public key.")


def log_proof(proof: Proof) -> LogProof:
    """Return the store's proof as it is answered."""
    leaf = proof.leaf
    return LogProof(
        entry=LogEntry(
            seq=leaf.seq,
            kind=leaf.kind,
            at=leaf.at,
            commitment=leaf.commitment.hex(),
            leaf_hash=_text(leaf.hash()),
        ),
        inclusion_proof=[_text(one) for one in proof.path],
        tree_size=proof.size,
        root=_text(proof.root),
        checkpoint=proof.note,
    )


def _text(hashed: bytes) -> str:
    return base64.b64encode(hashed).decode()
