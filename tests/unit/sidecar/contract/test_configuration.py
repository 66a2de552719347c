"""One content has one digest, whoever tells it and however it is written."""

import hashlib
import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.configuration import (
    MAX_REPORTED_CHARACTERS,
    Kind,
    canonical,
    configuration,
    digest,
    is_content,
)
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import (
    MAX_REPORTS,
    VERSION,
    ConfigurationReport,
    CoverageCount,
    RecordError,
    decode_coverage,
    encode_coverage,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_the_digest_is_that_of_the_text_as_anybody_can_work_it_out() -> None:
    made = configuration(Kind.WORKER, {"b": [1, 0.1], "a": None})

    assert made.content == '{"a":null,"b":[1,0.1]}'
    assert made.digest == hashlib.sha256(made.content.encode()).hexdigest()


def test_numbers_that_are_not_finite_are_kept_as_text() -> None:
    assert json.loads(canonical({"a": math.nan, "b": -math.inf})) == {"a": "nan", "b": "-inf"}


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_reading_and_writing_a_content_once_more_changes_no_byte(content: dict[str, object]) -> None:
    written = canonical(content)

    assert canonical(json.loads(written)) == written
    assert digest(written) == digest(canonical(json.loads(written)))
    assert is_content(written)


@pytest.mark.parametrize(
    "written",
    [
        '{"a":"\\ud800"}',
        '{"a":NaN}',
        '{"a":1e999}',
        '{"b":1,"a":1}',
        '{"a":1,"a":1}',
        '{"a": 1}',
        "[1]",
        "{",
        f'{{"a":{"[" * 300}{"]" * 300}}}',
        "[" * 60_000,
    ],
)
def test_what_could_be_stored_and_not_be_answered_with_is_no_content(written: str) -> None:
    assert not is_content(written)


class CountOfBefore(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    source: str
    hop: str
    model: str
    stratum: str
    minute: int
    counts: dict[str, int]


MESSAGE = CoverageCount(
    v=VERSION, source="s", hop=Hop.PLUGIN, model="m", stratum="uniform", minute=0, counts={}
)
REPORT = ConfigurationReport(kind="worker", digest=digest("{}"), content="{}")


def test_a_reader_of_before_reads_a_report_as_counts_of_nothing() -> None:
    told = encode_coverage(msgspec.structs.replace(MESSAGE, configurations=(REPORT,)))

    assert msgspec.msgpack.decode(told, type=CountOfBefore).counts == {}
    assert decode_coverage(told).configurations == (REPORT,)


def test_counts_of_before_report_nothing() -> None:
    old = CountOfBefore(
        v=VERSION, source="s", hop="plugin", model="m", stratum="uniform", minute=1, counts={}
    )

    assert decode_coverage(msgspec.msgpack.encode(old)).configurations == ()


@pytest.mark.parametrize(
    "reports",
    [
        (msgspec.structs.replace(REPORT, digest="of my own"),),
        (msgspec.structs.replace(REPORT, content="x" * (MAX_REPORTED_CHARACTERS + 1)),),
        (REPORT,) * (MAX_REPORTS + 1),
    ],
)
def test_reports_are_bounded(reports: tuple[ConfigurationReport, ...]) -> None:
    told = encode_coverage(msgspec.structs.replace(MESSAGE, configurations=reports))

    with pytest.raises(RecordError):
        decode_coverage(told)
