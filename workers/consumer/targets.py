"""What a worker decodes for: its model as each tenant serves it, registered when his first row comes.

Ids of models and decoders are each tenant's own. So samples, flags, incidents, windows and readings of
canaries of two tenants never meet, though their rows share a stream and are decoded in one batch.
"""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store import identity
from service.store.tables import Model
from service.store.tenants.register import TooManyTenantsError, list_names, use_tenant
from service.store.tenants.sessions import session_of
from service.store.write import concepts, decoders
from service.store.write.discoveries import Reader
from subtext_sidecar.contract.counters import DeadLetterReason
from workers.consumer.side.configuration_reports import ConfigurationReports
from workers.errors import UNUSABLE_STORES, PermanentError, is_outage


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a worker decodes for one tenant, as registered in the store."""

    tenant: str
    model_id: uuid.UUID
    decoder_id: uuid.UUID
    configuration_id: int | None = None
    """Of the worker's configuration, which the rows name that it stores; None: nobody told what it is."""

    @property
    def reader(self) -> Reader:
        """Whose readings these are, without the tenant, whom the transaction names."""
        return Reader(self.model_id, self.decoder_id)

    @property
    def ids(self) -> dict[str, Any]:
        """The ids that rows of this tenant are stored under."""
        return {"model_id": self.model_id, "decoder_id": self.decoder_id}


class Targets:
    """The tenants that this worker knows; safe to use from several threads."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        decoder: decoders.NewDecoder,
        watched: Sequence[concepts.NewConcept],
        *,
        source: str,
        reports: ConfigurationReports | None = None,
    ) -> None:
        """Register ``decoder`` for each tenant, whichever it names, and what concepts are watched for.

        ``source`` names this process start, in counts and in ``reports`` of what it runs, which each
        tenant's part of the store is told.
        """
        self.model = decoder.model
        """The served name, which records, counts and metrics carry; the decoder's own may be another."""
        self.source = source
        self._sessions = sessions
        self._decoder = decoder
        self._watched = watched
        self._reports = reports
        self._lock = threading.Lock()
        self._known: dict[str, Target] = {}

    def start(self) -> None:
        """Register the default tenant, and the decoder for every tenant of whom the store has the model.

        Raises ValueError when the store knows the model of one of them with another width, or a concept's
        version with another definition.
        """
        self.register(identity.DEFAULT_TENANT)
        with self._sessions() as session:
            names = list_names(session)
        for name in names:
            if self._has_model(name):
                self.register(name)

    def known(self) -> list[Target]:
        """Return those of the tenants that were registered by this worker, or before it began."""
        with self._lock:
            return list(self._known.values())

    def of(self, tenant: str) -> Target:
        """Return the tenant's target; raises PermanentError when the store refuses him or his model.

        One of UNUSABLE_STORES is raised as it is, and so is an outage.

        An engine's configuration is the operator's word, so that no list of tenants has to be kept twice.
        """
        with self._lock:
            target = self._known.get(tenant)
        if target is not None:
            return target
        try:
            return self.register(tenant)
        except UNUSABLE_STORES:  # which are ValueErrors, and no tenant is at fault
            raise
        except TooManyTenantsError as error:
            raise PermanentError(DeadLetterReason.TOO_MANY_TENANTS, str(error)) from error
        except (ValueError, SQLAlchemyError) as error:
            if is_outage(error):
                raise
            raise PermanentError(DeadLetterReason.STORE_REFUSED, f"tenant {tenant!r}: {error}") from error

    def register(self, tenant: str) -> Target:
        """Register all that is not there yet of a tenant; raises ValueError as `start`."""
        with self._sessions() as session:
            use_tenant(session, tenant)
            model_id, decoder_id = decoders.register_decoder(session, replace(self._decoder, tenant=tenant))
            concepts.register_concepts(session, model_id, self._watched)
            runs = None if self._reports is None else self._reports.note(session)
            session.commit()
        target = Target(tenant=tenant, model_id=model_id, decoder_id=decoder_id, configuration_id=runs)
        with self._lock:
            self._known[tenant] = target
        return target

    def _has_model(self, tenant: str) -> bool:
        model = identity.model_id(self.model, tenant)
        with session_of(self._sessions, tenant) as session:
            return session.scalar(select(Model.id).where(Model.id == model)) is not None
