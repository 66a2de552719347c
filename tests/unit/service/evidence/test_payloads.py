"""Every column of a logged table is committed to, or named among those that may change."""

import pytest

from service.evidence import entry, payloads
from service.store.schema import METADATA

COMMITMENT_OF_BEFORE = "9919bd86497e13d5131ee426e155558d4549050c3651fdec330171250523a86a"
TABLES = [*payloads.COLUMNS.values(), payloads.SAMPLE, payloads.MATCH]


@pytest.mark.parametrize("columns", TABLES, ids=lambda one: one.table)
def test_every_column_is_in_the_payload_or_may_change(columns: payloads.Columns) -> None:
    named = [*columns.committed, *columns.where_set, *columns.may_change]
    real = {column.name for column in METADATA.tables[columns.table].columns}

    assert len(named) == len(set(named))
    assert set(named) == real - payloads.NEVER


def test_a_column_that_came_later_is_committed_to_where_it_has_a_value() -> None:
    of_before = dict.fromkeys(payloads.COLUMNS[payloads.Kind.ACCESS].committed)

    payload = payloads.payload_of(payloads.Kind.ACCESS, of_before | {"person": None})
    with_person = payloads.payload_of(payloads.Kind.ACCESS, of_before | {"person": "anna"})

    assert set(payload) == {*of_before, "v", "table"}
    assert with_person == payload | {"person": "anna"}


def test_a_trail_is_part_of_the_payload() -> None:
    row = {"id": "one"}

    without = payloads.payload_of(payloads.Kind.FLAG, row)
    after = payloads.payload_of(payloads.Kind.FLAG, row, [b"\x01", b"\x02"])

    assert "trail" not in without
    assert after == without | {"trail": ["01", "02"]}


def test_matches_are_in_the_order_of_their_concepts() -> None:
    one, other = ({"concept": name, "matcher": "regex", "score": 1.0} for name in ("a", "b"))

    assert payloads.explanation_payload({}, {}, [one, other]) == payloads.explanation_payload(
        {}, {}, [other, one]
    )


def test_a_subject_is_committed_to_by_a_version_of_its_own() -> None:
    before, of_nobody, of_somebody, of_another = (
        payloads.explanation_payload({"id": "one"}, {"id": "two"} | subject, [])
        for subject in ({}, {"subject": None}, {"subject": "a" * 32}, {"subject": "b" * 32})
    )

    assert of_nobody == before
    assert (before["v"], "subject" in before["sample"]) == (1, False)
    assert (of_somebody["v"], of_somebody["sample"]["subject"]) == (2, "a" * 32)
    assert of_somebody["sample"] == before["sample"] | {"subject": "a" * 32}
    assert of_another != of_somebody


def test_explanations_of_before_subjects_keep_their_commitments() -> None:
    payload = payloads.explanation_payload({"id": "one"}, {"id": "two"}, [])

    assert entry.commit(b"s" * 16, payload).hex() == COMMITMENT_OF_BEFORE
