import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.record import RecordError
from subtext_sidecar.local import wire
from tests.support.records import status


def test_a_status_survives_the_round_trip() -> None:
    assert wire.decode_status(wire.encode_status(status())) == status()


@given(payload=st.binary(max_size=300))
def test_garbage_gives_a_record_error_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(RecordError):
        wire.decode_status(payload)


@pytest.mark.parametrize(
    "changes", [{"v": 2}, {"overhead": {"none": wire.OverheadCounts(counts=(1,), sum_seconds=0.0)}}]
)
def test_a_status_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        wire.decode_status(wire.encode_status(msgspec.structs.replace(status(), **changes)))


def test_text_that_is_not_utf8_is_refused() -> None:
    payload = wire.encode_status(msgspec.structs.replace(status(), model="smollm2"))

    with pytest.raises(RecordError):
        wire.decode_status(payload.replace(b"smollm2", b"\xf3mollm2"))
