"""What a second reading says of a recorded one; pure."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from workers.nla.decoder import Reading
from workers.nla.fidelity import share_interval

TOLERANCE: Final = 2e-3
"""Of the cosine. Products in bfloat16 differ by the batch: measured up to 4e-4 for the same text."""
DRAWN_BY: Final = ("temperature", "seed", "max_new_tokens")
"""Facts of the engine with any other of which candidates are others."""


class Status(StrEnum):
    """What came of one explanation."""

    IDENTICAL = "identical"
    DIFFERS = "differs"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is stored of a reading."""

    explanation_id: uuid.UUID
    text: str
    cosine: float
    fve: float
    fve_baseline: float
    candidates: int
    decoder_digest: str
    engine: Mapping[str, Any] | None
    """Of the worker that read it; None: nobody told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One explanation, read again or not."""

    recorded: Recorded
    status: Status
    why: str = ""
    """What differs, or why it cannot be read again and what would help."""
    text: str | None = None
    cosine: float | None = None
    fve: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return all but the texts, as JSON."""
        recorded = self.recorded
        return {
            "explanation_id": str(recorded.explanation_id),
            "status": self.status,
            "why": self.why or None,
            "text_identical": None if self.text is None else self.text == recorded.text,
            "cosine": {"recorded": recorded.cosine, "reread": self.cosine},
            "fve": {"recorded": recorded.fve, "reread": self.fve},
        }


def compared(recorded: Recorded, reading: Reading, text: str, *, tolerance: float = TOLERANCE) -> Outcome:
    """Hold a reading against the recorded one; ``text`` is the reading's as it would be stored.

    ``tolerance`` is of the cosine. FVE is 1 - 2 (1 - cosine) / baseline, so its own follows.
    """
    wrong = []
    if text != recorded.text:
        wrong.append("the text is another")
    figures = (
        ("cosine", recorded.cosine, reading.cosine, tolerance),
        ("fve", recorded.fve, reading.fve, 2 * tolerance / recorded.fve_baseline),
    )
    for name, before, now, allowed in figures:
        if not abs(before - now) <= allowed:
            wrong.append(f"{name} is off by {abs(before - now):.2g}, more than {allowed:.2g}")
    return Outcome(
        recorded=recorded,
        status=Status.DIFFERS if wrong else Status.IDENTICAL,
        why="; ".join(wrong),
        text=text,
        cosine=reading.cosine,
        fve=reading.fve,
    )


def cannot(recorded: Recorded, why: str) -> Outcome:
    """Return the outcome of what cannot be read again."""
    return Outcome(recorded=recorded, status=Status.CANNOT, why=why)


def why_not(recorded: Recorded, engine: Mapping[str, Any]) -> str:
    """Return why this engine would draw other candidates than then; '' when it would not."""
    if recorded.engine is None:
        return ""
    before = recorded.engine
    others = [name for name in DRAWN_BY if name in before and before[name] != engine.get(name)]
    if not others:
        return ""
    told = ", ".join(f"{name} was {before[name]} and is {engine.get(name)}" for name in others)
    return f"candidates are drawn otherwise: {told}; use the version of then"


def changed(recorded: Recorded, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the halves run on now and ran on then, where that is another: texts may differ by it."""
    before = recorded.engine or {}
    names = sorted((before.keys() & engine.keys()) - set(DRAWN_BY))
    return {
        name: {"recorded": before[name], "reread": engine[name]}
        for name in names
        if before[name] != engine[name]
    }


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """Return 1 when one differs, else 2 when one could not be read again or there is none, else 0."""
    found = {one.status for one in outcomes}
    if Status.DIFFERS in found:
        return 1
    return 0 if found == {Status.IDENTICAL} else 2


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return how many were identical of those that were read again, with a 95% interval."""
    read = [one for one in outcomes if one.status != Status.CANNOT]
    same = np.array([one.status == Status.IDENTICAL for one in read], bool)
    return {
        "explanations": len(outcomes),
        "reread": len(read),
        "identical": int(same.sum()),
        "identical_share": share_interval(same).as_dict() if read else None,
    }
