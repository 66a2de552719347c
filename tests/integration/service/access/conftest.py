"""One audited request with text, what was found on it, and how to read the log that tests cause."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import AccessEntry
from service.store.configuration import write
from service.store.configuration.write import Report
from service.store.evidence import proof
from service.store.evidence.tables import LogCheckpoint, LogLeaf
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed
from tests.integration.service.access.stored import RUNS, Entries, Stored


@pytest.fixture
def stored(sessions: sessionmaker[Session], exports_folder: Path) -> Stored:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        explanations = [
            seed.add_explanation(
                session,
                audited,
                position=position,
                concept="deception",
                claims=seed.CLAIMS,
                trace_id="0af7651916cd43dd8448eb211c80319c",
                subject=seed.SUBJECT,
            )
            for position in range(2)
        ]
        # Of before captures had an identity.
        explanations.append(
            seed.add_explanation(session, audited, request_id="old", capture_id=None, claims=seed.CLAIMS)
        )
        seed.add_coverage(session, hop="plugin", rows_sampled=1)
        report = Report(source="worker-1", hop=Hop.WORKER, model="tiny", layer=20, configuration=RUNS)
        write.note(session, [report])
        explanations[0].log_salt = bytes(16)
        session.flush()
        commitment = proof.explanation_commitment(session, explanations[0].id)
        session.add_all(
            [
                LogLeaf(seq=0, kind="explanation", at=seed.START, commitment=commitment),
                LogCheckpoint(size=1, note="a note"),
            ]
        )
        incident = seed.add_incident(session, seed.add_flag(session, audited))
        export = seed.add_export(session, exports_folder)
        hold, erasure = seed.add_hold(session, model="tiny"), seed.add_erasure(session)
        certificate = seed.add_certificate(session)
        version = seed.add_period(session, 400, is_confirmed=False)
        return Stored(explanations, incident, hold, export, erasure, certificate, version)


@pytest.fixture
def entries(sessions: sessionmaker[Session]) -> Entries:
    """Returns what was added to the log since it was asked last, in order."""
    seen = 0

    def read() -> Sequence[AccessEntry]:
        nonlocal seen
        with sessions() as session:
            found = session.scalars(
                select(AccessEntry).where(AccessEntry.seq > seen).order_by(AccessEntry.seq)
            ).all()
        seen = max([seen, *(entry.seq for entry in found)])
        return found

    return read
