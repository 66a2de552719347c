import uuid

import pytest

from service.api.access.disclosure import HOW_TO_READ, Disclosure, Withholding, capture_of
from service.store.tables import Sample

SAMPLE = Sample(capture_id=uuid.uuid4(), model_id=uuid.uuid4(), request_id="chat-1")


def test_what_was_not_logged_is_an_error_and_never_shown() -> None:
    logged = uuid.uuid4()
    disclosure = Disclosure(explanations=frozenset({logged}), withholding=None)

    assert disclosure.shows_text(logged)
    with pytest.raises(LookupError):
        disclosure.shows_text(uuid.uuid4())
    with pytest.raises(LookupError):
        disclosure.shows_token(SAMPLE)


@pytest.mark.parametrize("reason", Withholding)
def test_what_is_withheld_is_not_shown_though_it_was_logged(reason: Withholding) -> None:
    logged = uuid.uuid4()
    captures = frozenset({capture_of(SAMPLE)})
    disclosure = Disclosure(explanations=frozenset({logged}), captures=captures, withholding=reason)

    assert not disclosure.shows_text(logged)
    assert not disclosure.shows_token(SAMPLE)
    assert "Subtext-Purpose" in HOW_TO_READ[reason]
