"""What one request for erasure is about, as conditions for rows and as a test for entries of a stream."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select

from service.store.erasure.tables import ErasureScope
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tables import Flag, Incident, RequestName, RequestTest, Sample

OfCapture = type[Sample] | type[Flag] | type[Incident] | type[RequestTest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose data is to go."""

    erasure: uuid.UUID
    tenant: uuid.UUID
    scope: ErasureScope
    identifier: str
    """'' for a tenant."""
    asked_at: datetime
    """Of a tenant, what was captured later stays."""

    def branches(self, table: OfCapture) -> Sequence[ColumnElement[bool]]:
        """Return conditions of which one holds for each row that is to go; each has an index of its own."""
        mine = table.tenant_id == self.tenant
        match self.scope:
            case ErasureScope.REQUEST:
                named = select(RequestName.capture_id).where(
                    RequestName.tenant_id == self.tenant, RequestName.name == self.identifier
                )
                unnamed = select(RequestName.request_id).where(
                    RequestName.tenant_id == self.tenant,
                    RequestName.name == self.identifier,
                    RequestName.capture_id.is_(None),
                )
                return [
                    mine & table.capture_id.in_(named),
                    mine & table.capture_id.is_(None) & table.request_id.in_(unnamed),
                    mine & (table.request_id == self.identifier),
                ]
            case ErasureScope.CAPTURE:
                return [mine & (table.capture_id == uuid.UUID(self.identifier))]
            case ErasureScope.TRACE:
                # Only samples carry it; what stands on them goes with them.
                return [mine & (Sample.trace_id == self.identifier)] if table is Sample else []
            case ErasureScope.SUBJECT:
                return [mine & (Sample.subject == self.identifier)] if table is Sample else []
            case ErasureScope.TENANT:
                at = table.captured_at if table is Sample else table.last_captured_at  # type: ignore[union-attr]  # the other three have it
                return [mine & (at <= self.asked_at)]

    def names(self) -> ColumnElement[bool] | None:
        """Return the condition for names of captures that are to go, also of those without a sample."""
        mine = RequestName.tenant_id == self.tenant
        match self.scope:
            case ErasureScope.REQUEST:
                named = select(RequestName.capture).where(
                    RequestName.tenant_id == self.tenant, RequestName.name == self.identifier
                )
                return mine & RequestName.capture.in_(named)
            case ErasureScope.CAPTURE:
                return mine & (RequestName.capture_id == uuid.UUID(self.identifier))
            case ErasureScope.TRACE | ErasureScope.SUBJECT:
                return None
            case ErasureScope.TENANT:
                return mine & (RequestName.captured_at <= self.asked_at)

    def is_of(self, header: Mapping[str, Any]) -> bool:
        """Tell whether an entry with this header is to go."""
        tenant = header.get("tenant", DEFAULT_TENANT)
        if not isinstance(tenant, str) or tenant_id(tenant) != self.tenant:
            return False
        match self.scope:
            case ErasureScope.REQUEST:
                names = header.get("request_names") or ()
                return self.identifier == header.get("request_id") or self.identifier in names
            case ErasureScope.CAPTURE:
                return header.get("capture_id") == uuid.UUID(self.identifier).hex
            case ErasureScope.TRACE:
                return header.get("trace_id") == self.identifier
            case ErasureScope.SUBJECT:
                return header.get("subject") == self.identifier
            case ErasureScope.TENANT:
                at = header.get("captured_at")
                return not isinstance(at, int | float) or at <= self.asked_at.timestamp()

    def is_in(self, content: bytes) -> bool:
        """Tell whether bytes that nobody can decode have the identifier somewhere."""
        if self.scope is ErasureScope.CAPTURE:
            return uuid.UUID(self.identifier).hex.encode() in content
        return bool(self.identifier) and self.identifier.encode() in content
