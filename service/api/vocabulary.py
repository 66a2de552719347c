"""The contract's enumerations as REST lists them: in place, in its description and in its errors.

An enumeration itself would become a schema with a name of its own, and clients generate types from
those. To a type checker they are the enumerations.
"""

from typing import TYPE_CHECKING, Literal

from service.api.access import disclosure
from service.incidents import lifecycle
from service.store.access import tables as access
from subtext_sidecar.contract import counters, equations

if TYPE_CHECKING:
    LossKind = counters.LossKind
    Place = equations.Place
    Stratum = counters.Stratum
    IncidentState = lifecycle.State
    IncidentEventKind = lifecycle.EventKind
    IncidentReason = lifecycle.Reason
    Withholding = disclosure.Withholding
    AccessAction = access.Action
    AccessPurpose = access.Purpose
    AccessResult = access.Result
    AccessSubjectKind = access.SubjectKind
else:
    LossKind = Literal[tuple(map(str, counters.LossKind))]
    Place = Literal[tuple(map(str, equations.Place))]
    Stratum = Literal[tuple(map(str, counters.Stratum))]
    IncidentState = Literal[tuple(map(str, lifecycle.State))]
    IncidentEventKind = Literal[tuple(map(str, lifecycle.EventKind))]
    IncidentReason = Literal[tuple(map(str, lifecycle.Reason))]
    Withholding = Literal[tuple(map(str, disclosure.Withholding))]
    AccessAction = Literal[tuple(map(str, access.Action))]
    AccessPurpose = Literal[tuple(map(str, access.Purpose))]
    AccessResult = Literal[tuple(map(str, access.Result))]
    AccessSubjectKind = Literal[tuple(map(str, access.SubjectKind))]
