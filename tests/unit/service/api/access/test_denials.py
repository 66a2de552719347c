import datetime as dt
import uuid

from service.api.access.denials import EVERY, Denial, Denials
from service.store.access.tables import Result

NOW = dt.datetime(2026, 11, 28, 13, 0, tzinfo=dt.UTC)
DENIAL = Denial(uuid.uuid4(), "list_flags", Result.MISSING_SCOPE)


def test_a_minute_of_denials_has_one_entry_and_the_next_says_how_many_had_none() -> None:
    denials = Denials()

    first = [denials.begin(DENIAL, NOW + dt.timedelta(seconds=second)) for second in range(60)]

    assert first == [0] + 59 * [None]
    assert denials.begin(DENIAL, NOW + EVERY) == 59
    assert denials.begin(DENIAL, NOW + 2 * EVERY) == 0


def test_another_key_operation_or_reason_has_an_entry_of_its_own() -> None:
    denials = Denials()
    others = [
        DENIAL._replace(caller_id=uuid.uuid4()),
        DENIAL._replace(operation="list_models"),
        DENIAL._replace(result=Result.EXPIRED_KEY),
    ]

    assert [denials.begin(one, NOW) for one in (DENIAL, *others)] == [0, 0, 0, 0]


def test_an_entry_that_could_not_be_written_is_counted_in_the_next() -> None:
    denials = Denials()
    denials.begin(DENIAL, NOW)
    denials.begin(DENIAL, NOW)
    denials.undo(DENIAL, 0)

    assert denials.begin(DENIAL, NOW + EVERY) == 2


def test_what_is_remembered_is_bounded() -> None:
    denials = Denials()
    for _ in range(10_001):
        denials.begin(DENIAL._replace(caller_id=uuid.uuid4()), NOW)
    denials.begin(DENIAL, NOW)

    assert denials.begin(DENIAL, NOW) is None
