"""The schema whole: every table of the store, so that nobody who walks them forgets a room's."""

from typing import Final

from sqlalchemy import MetaData

from service.store import tables
from service.store.access import tables as access
from service.store.base import Base
from service.store.canary import tables as canary
from service.store.configuration import tables as configuration
from service.store.erasure import tables as erasure
from service.store.evidence import tables as evidence
from service.store.exports import tables as exports
from service.store.people import tables as people
from service.store.retention import tables as retention
from service.store.tenants import tables as tenants
from service.store.vectors import tables as vectors

ROOMS: Final = (
    tables,
    access,
    canary,
    configuration,
    erasure,
    evidence,
    exports,
    people,
    retention,
    tenants,
    vectors,
)
"""Modules with tables. Importing one is what adds its tables to the metadata."""

METADATA: Final[MetaData] = Base.metadata
