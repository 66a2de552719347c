"""What somebody says to a removal that waits, as asked and answered."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.parameters import Note
from service.api.schemas.answer import Attribution


class NewDecision(BaseModel):
    """Confirm a removal that waits, or object to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decision: Literal["confirmed", "objected"] = Field(
        description="`confirmed`: it need not wait any longer; whoever asked for it cannot. `objected`: it "
        "is never carried out."
    )
    reason: Note = Field(description="Why. It cannot be changed later: write no personal data into it.")


class RemovalDecision(Attribution):
    """What was said to a removal while it waited, and by whom. It never changes."""

    decision: Literal["confirmed", "objected"]
    reason: str
    at: dt.datetime = Field(description="UTC.")
