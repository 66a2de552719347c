"""The contract's enumerations as REST lists them: in place, in its description and in its errors.

An enumeration itself would become a schema with a name of its own, and clients generate types from
those. To a type checker they are the enumerations.
"""

from typing import TYPE_CHECKING, Literal

from service import auth
from service.api.access import disclosure
from service.coverage import gaps
from service.evidence.bundle import layout as bundle_layout
from service.exports import query as exports
from service.incidents import clocks, lifecycle
from service.retention import classes
from service.store.access import tables as access
from service.store.exports import tables as export_tables
from service.store.retention import tables as retention
from subtext_sidecar.contract import configuration, counters, equations

IncidentOrder = Literal["newest", "queue"]
AssigneeFilter = Literal["me", "none"]
AssigneeKind = Literal["me", "none", "key", "person"]
CanaryStatus = Literal["ran", "none_ran", "results_not_kept"]

if TYPE_CHECKING:
    GapReason = gaps.GapReason
    ConfigurationKind = configuration.Kind
    Hop = counters.Hop
    ReportClock = clocks.Clock
    LossKind = counters.LossKind
    Place = equations.Place
    Stratum = counters.Stratum
    IncidentState = lifecycle.State
    IncidentStateFilter = str
    IncidentEventKind = lifecycle.EventKind
    IncidentReason = lifecycle.Reason
    Withholding = disclosure.Withholding
    RetentionClass = classes.RetentionClass
    RetainedRecords = retention.Records
    AccessAction = access.Action
    AccessPurpose = access.Purpose
    AccessResult = access.Result
    AccessSubjectKind = access.SubjectKind
    KeyRole = auth.Role
    KeyScope = auth.Scope
    ExportKind = exports.ExportKind
    ExportState = export_tables.State
    RowFormat = bundle_layout.RowFormat
else:
    GapReason = Literal[tuple(map(str, gaps.GapReason))]
    ConfigurationKind = Literal[tuple(map(str, configuration.Kind))]
    Hop = Literal[tuple(map(str, counters.Hop))]
    ReportClock = Literal[tuple(map(str, clocks.Clock))]
    LossKind = Literal[tuple(map(str, counters.LossKind))]
    Place = Literal[tuple(map(str, equations.Place))]
    Stratum = Literal[tuple(map(str, counters.Stratum))]
    IncidentState = Literal[tuple(map(str, lifecycle.State))]
    IncidentStateFilter = Literal[(*map(str, lifecycle.State), lifecycle.UNDECIDED)]
    IncidentEventKind = Literal[tuple(map(str, lifecycle.EventKind))]
    IncidentReason = Literal[tuple(map(str, lifecycle.Reason))]
    Withholding = Literal[tuple(map(str, disclosure.Withholding))]
    RetentionClass = Literal[tuple(map(str, classes.RetentionClass))]
    RetainedRecords = Literal[tuple(map(str, retention.Records))]
    AccessAction = Literal[tuple(map(str, access.Action))]
    AccessPurpose = Literal[tuple(map(str, access.Purpose))]
    AccessResult = Literal[tuple(map(str, access.Result))]
    AccessSubjectKind = Literal[tuple(map(str, access.SubjectKind))]
    KeyRole = Literal[tuple(map(str, auth.Role))]
    KeyScope = Literal[tuple(map(str, auth.Scope))]
    ExportKind = Literal[tuple(map(str, exports.ExportKind))]
    ExportState = Literal[tuple(map(str, export_tables.State))]
    RowFormat = Literal[tuple(map(str, bundle_layout.RowFormat))]
