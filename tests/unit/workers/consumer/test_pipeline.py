"""Every entry of a batch gets exactly one decision, whatever is in it."""

import datetime as dt
import json
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.base import values_of
from service.store.tables import Sample
from service.store.write.readings import NewReading
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Stratum
from tests.support.records import encode_header, header_for
from workers.consumer import pipeline
from workers.consumer.queue import Entry
from workers.judge.judge import Judgement
from workers.nla.decoder import Claims, Reading
from workers.nla.fake import fake_identity

IDENTITY = fake_identity(model="base", layer=1, d_model=4)
SERVED = "served"


def entry(number: int = 0, *, deliveries: int = 1, **changes: Any) -> Entry:
    vector = np.full(4, 2.0, "<f4").tobytes()
    fields: dict[str, Any] = {
        "model": SERVED,
        "request_id": "request",
        "layer": 1,
        "position": number,
        "token_id": 7,
        "norm": 4.0,
        "probability": 1.0,
        "baseline_probability": 0.5,
        "captured_at": 1.8e9,
    }
    header = encode_header(header_for(vector, **(fields | changes)))
    return Entry(b"%d-0" % number, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}, deliveries)


def sort(*entries: Entry) -> pipeline.SortedBatch:
    return pipeline.sort_entries(entries, IDENTITY, served_model=SERVED)


@given(
    st.lists(
        st.one_of(
            st.builds(entry, st.integers(0, 5)),
            st.builds(lambda field: entry(layer=field), st.integers(0, 3)),
            st.builds(
                lambda header, vector: Entry(
                    b"0-0", {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}, 1
                ),
                st.binary(max_size=200),
                st.binary(max_size=40),
            ),
            st.just(Entry(b"0-1", {}, 1)),
        ),
        max_size=20,
    )
)
def test_no_entry_is_lost_or_decided_twice_and_no_garbage_raises(entries: list[Entry]) -> None:
    works, repeats, rejections = sort(*entries)

    decided = [*(w.entry for w in works), *(w.entry for w in repeats), *(r.entry for r in rejections)]
    assert sorted(map(id, decided)) == sorted(map(id, entries))
    ids = [work.sample_id for work in works]
    assert len(set(ids)) == len(ids)
    assert {work.sample_id for work in repeats} <= set(ids)


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"model": "other"}, "wrong_decoder", "model"),
        ({"layer": 9}, "wrong_decoder", "layer"),
        ({"request_id": "é" * 513}, "oversized", "request_id: has 1026 bytes"),
        ({"position": 2**31}, "bad_field", "position"),
        ({"token_id": 2**31}, "bad_field", "token_id"),
        ({"captured_at": -1e300}, "bad_field", "captured_at"),
        ({"stratum": Stratum.OPT_OUT}, "bad_field", "stratum"),
        ({"stratum": "made up"}, "bad_field", "stratum"),
    ],
)
def test_a_rejection_names_the_field(changes: dict[str, Any], reason: str, field: str) -> None:
    (rejection,) = sort(entry(**changes)).rejections

    assert rejection.reason == reason
    assert field in rejection.error


@pytest.mark.parametrize("changes", [{"request_id": "x" * 1024}, {"position": 2**31 - 1}])
def test_what_the_store_can_just_hold_is_work(changes: dict[str, Any]) -> None:
    assert len(sort(entry(**changes)).works) == 1


def test_only_what_was_delivered_too_often_without_an_outcome_is_worn_out() -> None:
    works = sort(entry(1, deliveries=5), entry(2, deliveries=6), entry(3, deliveries=6)).works

    worn = pipeline.worn_out(works, {works[2].sample_id}, max_deliveries=5)

    assert [rejection.entry.id for rejection in worn] == [b"2-0"]
    assert worn[0].reason == "too_many_deliveries"


def test_works_are_told_apart_by_tenant_and_a_repeated_capture_is_work_of_both() -> None:
    sorted_ = sort(entry(1, tenant="acme"), entry(1), entry(1, tenant="acme"), entry(2, tenant="acme"))

    found = pipeline.by_tenant(sorted_.works)

    assert [(tenant, len(works)) for tenant, works in found.items()] == [("acme", 2), ("default", 1)]
    assert [work.tenant for work in sorted_.repeats] == ["acme"]


def test_a_repetition_and_another_capture_of_one_sample_are_told_apart() -> None:
    fresh, again, another = sort(entry(1), entry(2), entry(3)).works
    known = {
        again.sample_id: again.captured_at,
        another.sample_id: another.captured_at - dt.timedelta(seconds=1),
    }

    repeated = pipeline.split_repeated([fresh, again, another], known)

    assert repeated == ([again], [another])


CLAIMS = Claims(
    register="an answer",
    area="medicine",
    topic="headaches",
    kinds=("self-harm",),
    expects=" to\x00",
    expects_agreement=0.75,
    areas={"medicine": 0.8, "cooking": 0.15},
    kind_scores={"self-harm": 0.6},
)


def reading(**changes: Any) -> Reading:
    return Reading(
        "text",
        well_formed=True,
        cosine=0.9,
        fve=0.5,
        fve_beyond_token=0.3,
        verified=True,
        position_class="answer",
        claims=CLAIMS,
        candidates=4,
        margin=0.02,
    )._replace(**changes)


def test_rows_carry_what_was_measured() -> None:
    changes: dict[str, Any] = {
        "stratum": Stratum.OPT_IN,
        "scores": {"anomaly": 3.5},
        "request_names": ("x", "x_0"),
    }
    works = sort(entry(3, **changes)).works
    verdicts = [Judgement(None, None, None, [])]

    (row,) = pipeline.to_rows(
        works, [reading()], verdicts, lambda token_id: f"<{token_id}>", is_trusted=True
    )

    sample = row.sample
    assert sample.id == works[0].sample_id != uuid.UUID(int=0)
    assert (sample.position, sample.token_text, row.fve, row.verified) == (3, "<7>", 0.5, True)
    assert (sample.stratum, sample.inclusion_probability) == ("opt_in", 1.0)
    assert (sample.baseline_probability, sample.screen_scores) == (0.5, {"anomaly": 3.5})
    assert sample.captured_at == works[0].captured_at
    assert row.anomaly_p_value is None
    assert row.request_names == ("x", "x_0")
    assert (row.fve_beyond_token, row.position_class, row.candidates, row.margin) == (
        0.3,
        "answer",
        4,
        0.02,
    )


def test_a_sample_has_every_column_and_every_field_of_its_record_has_a_place() -> None:
    columns = set(Sample.__table__.columns.keys())
    (row,) = rows_of()

    assert set(values_of(row.sample)) == columns - {
        "model_id",
        "configuration_id",
        "stored_at",
        "tenant_id",
    }
    # Stored elsewhere or otherwise, said by the model or the vector, or by nobody once it was checked.
    beside = {
        "probability",
        "scores",
        "model",
        "dtype",
        "shape",
        "v",
        "checksum",
        "request_names",
        "canary",
        "configuration",
        "tenant",  # as an id, and by the transaction
    }
    assert record.FIELDS - columns == beside


def rows_of(*, is_trusted: bool = True, **changes: Any) -> list[NewReading]:
    verdicts = [Judgement(None, None, None, [])]
    return pipeline.to_rows(sort(entry()).works, [reading(**changes)], verdicts, str, is_trusted=is_trusted)


def test_claims_become_json_that_the_store_can_hold() -> None:
    (row,) = rows_of()

    assert row.claims is not None
    assert json.loads(json.dumps(row.claims)) == row.claims
    assert row.claims == {
        "register": "an answer",
        "area": "medicine",
        "topic": "headaches",
        "kinds": ["self-harm"],
        "expects": " to\ufffd",
        "expects_agreement": 0.75,
        "areas": {"medicine": 0.8, "cooking": 0.15},
        "kind_scores": {"self-harm": 0.6},
    }


def test_a_decoder_without_labels_claims_nothing() -> None:
    (row,) = rows_of(claims=None, fve_beyond_token=None, margin=None)

    assert (row.claims, row.fve_beyond_token, row.margin) == (None, None, None)


def test_nothing_is_verified_while_the_decoder_is_not_trusted() -> None:
    assert [row.verified for row in rows_of()] == [True]
    assert [row.verified for row in rows_of(is_trusted=False)] == [False]
    assert [row.verified for row in rows_of(verified=False)] == [False]


@pytest.mark.parametrize("field", ["cosine", "fve", "fve_beyond_token", "margin"])
def test_a_fidelity_that_is_no_number_makes_no_row(field: str) -> None:
    with pytest.raises(ValueError, match="not finite"):
        rows_of(is_trusted=True, **{field: float("nan")})


@pytest.mark.parametrize(
    "changes",
    [
        {"expects_agreement": float("nan")},
        {"areas": {"a": float("inf")}},
        {"kind_scores": {"k": float("nan")}},
    ],
)
def test_a_claim_with_a_figure_that_is_no_number_makes_no_row(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        rows_of(claims=CLAIMS._replace(**changes))


@given(st.text(st.characters(), max_size=50) | st.just("\x00\ud800"))
def test_any_text_becomes_storable(text: str) -> None:
    stored = pipeline.storable(text)

    assert "\x00" not in stored
    stored.encode("utf-8")
