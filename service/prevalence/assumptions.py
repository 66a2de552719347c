"""What a prevalence takes for granted, in words for readers who do not know the code. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.prevalence.statement import ConceptPrevalence
from subtext_sidecar.contract.counters import Stratum

_ALWAYS: Final = {
    "flags_are_hypotheses": "A request counts when it was flagged: false flags count too, and what the "
    "decoder cannot put into words is missing. A share below the false-positive rate says nothing.",
    "read_as_sampled": "It is the share of requests that would be flagged if all were read as the sampled "
    "ones are: at as many positions, by the same decoder and concept definitions. Another stride, window "
    "or bound of rows a request gives another share.",
    "rate_changed_in_request": "The screen's rate may change while a request runs. Such a request has "
    "the weight of its largest rate, may have been read at fewer positions than others, and may owe its "
    "flag to rows that only the screen chose.",
    "losses_at_random": "Lost rows are made up for by stratum and minute, as if what was lost were like "
    "what arrived there, and as if requests were lost in the proportion of their rows.",
    "edge_of_range": "A request with rows on both sides of an end of the range counts by those inside.",
    "one_trace_many_requests": "Requests of one trace are sampled together, and their dependence is not in "
    "the intervals: with many requests a trace they are too narrow.",
    "traces_of_kept_spans": "A gateway that forwards `traceparent` only for the spans it kept makes such "
    "requests likelier than their probability says. The alert SubtextSampledShareOff is for that.",
    "definitions_changed": "Flags of an earlier version of the concept count like those of the one in "
    "force.",
    "anytime_from_one_start": "`lower_anytime` holds however often one looks with the same start of the "
    "range; of a share that changes it never exceeds the highest value. Another start is another chance.",
}
_UNCALIBRATED: Final = (
    "Flags in the range whose false-positive rate is not known: thresholds are not calibrated."
)
_OPTED_OUT: Final = "Requests whose clients asked not to be read: the share is of the others."
_UNSEEN_CONCEPT: Final = (
    "No explanation of this model ever matched the concept: it does not occur, was not watched for, or its "
    "name is misspelt. The store cannot tell which."
)
_UNCOUNTED: Final = "Judged requests of minutes of which no counts arrived: taken as if nothing was lost."
_UNVERIFIED: Final = "Judged requests without any verified reading: none of them could be flagged."
_UNEQUAL: Final = (
    "Weights are very unequal, as under a budget that cuts deep: the count says how many equal requests "
    "would be as precise. In the simulation of decision 5 such an interval held the truth on 85 instead of "
    "95 of 100 days."
)
_UNEQUAL_FROM: Final = 3.0  # design effect of a reader's requests


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that the figures take for granted."""

    code: str
    detail: str
    count: int | None  # where it was counted that it does not hold, or to what extent


CODES: Final = frozenset(
    {*_ALWAYS, "uncalibrated_flags", "opted_out", "unseen_concept", "uncounted_minutes"}
    | {"without_verified_reading", "unequal_weights"}
)


def assumptions(
    found: list[ConceptPrevalence], seen: Mapping[str, int], *, is_known: bool, uncalibrated: int
) -> list[Assumption]:
    """Return what does not hold in this range, with its count, and then what is always assumed.

    ``seen`` counts requests by stratum. Counts over several readers are those of the reader with the most.
    """
    unequal = [
        int(one.effective_requests)
        for one in found
        if one.requests > _UNEQUAL_FROM * max(1.0, one.effective_requests)
    ]
    counted = [
        Assumption("uncalibrated_flags", _UNCALIBRATED, uncalibrated),
        Assumption("opted_out", _OPTED_OUT, seen.get(Stratum.OPT_OUT, 0)),
        Assumption(
            "uncounted_minutes", _UNCOUNTED, max((one.requests_uncounted for one in found), default=0)
        ),
        Assumption(
            "without_verified_reading",
            _UNVERIFIED,
            max((one.requests - one.requests_verified for one in found), default=0),
        ),
    ]
    return [
        *(() if is_known else (Assumption("unseen_concept", _UNSEEN_CONCEPT, None),)),
        *(one for one in counted if one.count),
        *(Assumption("unequal_weights", _UNEQUAL, min(unequal)) for _ in unequal[:1]),
        *(Assumption(code, detail, None) for code, detail in _ALWAYS.items()),
    ]
