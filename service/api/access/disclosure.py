"""Which texts one answer may show: those whose reading is in the access log, and no others."""

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.api.access.purpose import CODES, HEADER
from service.store.identity import capture_name
from service.store.tables import Sample


class Withholding(StrEnum):
    """Why an answer shows no text."""

    MISSING_SCOPE = "missing_scope"
    MISSING_PURPOSE = "missing_purpose"


HOW_TO_READ: Final = {
    Withholding.MISSING_SCOPE: (
        f"the key lacks the scope explanations:read_text; use one that has it, with the header {HEADER}"
    ),
    Withholding.MISSING_PURPOSE: f"send the header {HEADER}: CODE or CODE; note, with one of {CODES}",
}
"""By reason, what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """The gate's answer. Only `service.api.access.gate` makes one that shows anything."""

    explanations: frozenset[uuid.UUID] = frozenset()
    captures: frozenset[uuid.UUID] = frozenset()
    withholding: Withholding | None

    def shows_text(self, explanation: uuid.UUID) -> bool:
        """Tell whether the explanation's text may be shown; LookupError when its reading was not logged."""
        return self.withholding is None and _is_logged(explanation, self.explanations)

    def shows_token(self, sample: Sample) -> bool:
        """Tell whether the sample's token may be shown; LookupError as `shows_text`."""
        return self.withholding is None and _is_logged(capture_of(sample), self.captures)


def _is_logged(subject: uuid.UUID, logged: frozenset[uuid.UUID]) -> bool:
    if subject not in logged:
        raise LookupError("an answer would show what the access log does not say was read")
    return True


def capture_of(sample: Sample) -> uuid.UUID:
    """Return what tells the sample's capture apart from all others."""
    return capture_name(sample.capture_id, sample.model_id, sample.request_id)
