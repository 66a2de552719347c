"""Everything that a test of exports needs, at one place."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.evidence.bundle.check import check
from service.evidence.bundle.finding import Report
from service.evidence.note import Signer
from service.exports import files
from service.exports.make import Maker
from tests.integration.service.exports import past
from tests.integration.service.exports.past import Past


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that a test of exports needs."""

    client: TestClient
    admin: dict[str, str]
    maker: Maker
    signer: Signer
    sessions: sessionmaker[Session]
    stored: Past

    def create(self, headers: Mapping[str, str] | None = None, **more: Any) -> uuid.UUID:
        """Ask for an export of everything in the period."""
        answer = self.client.post("/v1/exports", json=past.asked(**more), headers=headers or self.admin)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/exports/{answer.json()['id']}"
        return uuid.UUID(answer.json()["id"])

    def made(self, **more: Any) -> uuid.UUID:
        """Ask for one and make it."""
        export = self.create(**more)
        self.maker.make(export)
        return export

    def told(self, export: uuid.UUID) -> Any:
        """Return what the API says of it."""
        return self.client.get(f"/v1/exports/{export}", headers=self.admin).json()

    def file(self, export: uuid.UUID) -> Path:
        """Return where its file is."""
        return files.path_of(self.maker.folder, past.TENANT, export)

    def check(self, export: uuid.UUID, earlier: str | None = None) -> Report:
        """Verify its file."""
        return check(self.file(export), self.signer.verifier, earlier)
