"""Complete requests are tested once, in a window, by one worker, and what is found opens an incident."""

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Sequence

import numpy as np
import psycopg
import pytest
from sqlalchemy import func, select

from service.incidents.lifecycle import ANOMALY_SEVERITY
from service.store.identity import tenant_id
from service.store.tables import AnomalyWindow, Incident, IncidentEvent, RequestTest
from service.store.write import incident_repair
from subtext_sidecar.anomaly import fit
from subtext_sidecar.anomaly.reference import digest
from subtext_sidecar.anomaly.score import Reference
from tests.support.worker import D_MODEL, MODEL, Bench, make_record
from workers.nla.fake import FakeDecoder

USUAL, STRANGE = 0.6, 0.001
REQUESTS = 24
LABELS = {"model": MODEL, "layer": "1"}


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Benign requests with three rows each."""
    rng = np.random.default_rng(0)
    rows = 0.01 * rng.standard_normal((12_000, D_MODEL)) + np.eye(D_MODEL)[0]
    return fit.fit(rows, np.repeat(np.arange(4000), 3), model=MODEL, layer=1).reference


@pytest.fixture
def bench(make_bench: Callable[..., Bench], reference: Reference) -> Bench:
    return watching(make_bench, reference)


def watching(make_bench: Callable[..., Bench], reference: Reference | None, **changes: object) -> Bench:
    given = {"anomaly_window_requests": 20, "anomaly_settle_seconds": 60.0, "batch_entries": 64} | changes
    return make_bench(FakeDecoder(), reference, **given)


def later(minutes: float = 10) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)


def store(
    bench: Bench,
    p_values: Sequence[float],
    owner_url: str,
    *,
    prefix: str = "r",
    **changes: object,
) -> None:
    """Have the worker store two rows of a request for each p-value, and set it as theirs."""
    for number, _ in enumerate(p_values):
        for position in (10, 11):
            bench.add(
                *make_record(
                    position=position,
                    request_id=f"{prefix}{number}",
                    capture_id=capture(f"{prefix}{number}").hex,
                    **changes,
                )
            )
    bench.drain()
    with psycopg.connect(owner_url) as owner:
        for number, p_value in enumerate(p_values):
            owner.execute(
                "UPDATE explanations SET anomaly_p_value = %s FROM samples"
                " WHERE samples.id = sample_id AND request_id = %s",
                (p_value, f"{prefix}{number}"),
            )


def capture(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, name)


def list_tests(bench: Bench) -> list[RequestTest]:
    with bench.sessions() as session:
        return list(session.scalars(select(RequestTest).order_by(RequestTest.request_id)))


def test_a_strange_request_is_a_discovery_with_its_window_and_opens_an_incident(
    bench: Bench, reference: Reference, database_url: str
) -> None:
    store(bench, [STRANGE] + [USUAL] * (REQUESTS - 1), database_url)

    bench.parts.discoveries.look(later())

    found = [test for test in list_tests(bench) if test.is_discovery]
    with bench.sessions() as session:
        window = session.scalars(select(AnomalyWindow)).one()
        incident = session.scalars(select(Incident)).one()
        event = session.scalars(select(IncidentEvent)).one()
    [test] = found
    assert (test.request_id, test.rank, test.positions) == ("r0", 1, [10, 11])
    assert test.q_value == pytest.approx(test.p_value * REQUESTS)
    assert test.p_value < test.q_value < 0.1
    assert (window.requests, window.discoveries, window.fdr) == (REQUESTS, 1, 0.1)
    assert (window.reference_digest, window.threshold) == (digest(reference), test.p_value)
    assert (incident.capture_id, incident.severity) == (capture("r0"), ANOMALY_SEVERITY)
    [finding] = event.findings
    assert (finding["kind"], finding["requests"], finding["fdr"]) == ("anomaly", REQUESTS, 0.1)
    assert finding["rows"] == [{"position": place, "p_value": STRANGE} for place in (10, 11)]
    assert finding["reference_digest"] == digest(reference)
    assert bench.metric("subtext_anomaly_requests_tested_total", **LABELS) == REQUESTS
    assert bench.metric("subtext_anomaly_request_discoveries_total", **LABELS) == 1
    assert (
        bench.metric("subtext_incident_events_total", model=MODEL, kind="opened", severity=ANOMALY_SEVERITY)
        == 1
    )


def test_a_request_is_tested_once_however_often_somebody_looks(bench: Bench, database_url: str) -> None:
    store(bench, [USUAL] * REQUESTS, database_url)
    for minutes in (10, 20, 200):
        bench.parts.discoveries.look(later(minutes))
    assert len(list_tests(bench)) == REQUESTS

    store(bench, [USUAL] * REQUESTS, database_url, prefix="s")
    bench.parts.discoveries.look(later(20))
    assert len(list_tests(bench)) == REQUESTS  # the window before was closed less than an hour ago
    bench.parts.discoveries.look(later(90))

    assert len(list_tests(bench)) == 2 * REQUESTS
    with bench.sessions() as session:
        assert session.scalars(select(AnomalyWindow.requests)).all() == [REQUESTS, REQUESTS]


def test_a_window_is_of_one_tenants_requests(bench: Bench, database_url: str) -> None:
    store(bench, [USUAL] * 10, database_url, prefix="a", tenant="acme")
    store(bench, [USUAL] * 10, database_url)
    bench.parts.discoveries.look(later())
    assert list_tests(bench) == []  # each has too few, though both together have enough

    store(bench, [STRANGE] + [USUAL] * 9, database_url, prefix="b", tenant="acme")
    bench.parts.discoveries.look(later(20))

    assert {test.request_id[0] for test in list_tests(bench)} == {"a", "b"}
    with bench.sessions() as session:
        windows = session.scalars(select(AnomalyWindow)).all()
        [incident] = session.scalars(select(Incident)).all()
    assert [(one.tenant_id, one.requests) for one in windows] == [(tenant_id("acme"), 20)]
    assert (incident.tenant_id, incident.request_id) == (tenant_id("acme"), "b0")


def test_a_request_that_may_still_grow_and_a_window_that_is_too_small_wait(
    bench: Bench, database_url: str
) -> None:
    store(bench, [USUAL] * REQUESTS, database_url)
    bench.parts.discoveries.look(later(0))
    assert list_tests(bench) == []

    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE samples SET stored_at = now() + interval '5 minutes' WHERE request_id < 'r2'")
    bench.parts.discoveries.look(later(3))
    assert list_tests(bench) == []
    bench.parts.discoveries.look(later(10))

    assert len(list_tests(bench)) == REQUESTS


def test_what_only_the_screen_chose_is_not_tested(bench: Bench, database_url: str) -> None:
    store(bench, [USUAL] * REQUESTS, database_url)
    store(bench, [STRANGE] * 3, database_url, prefix="screened", baseline_probability=0.0)

    bench.parts.discoveries.look(later())

    assert {test.request_id[0] for test in list_tests(bench)} == {"r"}
    assert len(list_tests(bench)) == REQUESTS


def test_two_workers_that_look_at_once_test_every_request_once(
    make_bench: Callable[..., Bench], reference: Reference, database_url: str
) -> None:
    benches = [watching(make_bench, reference) for _ in range(2)]
    store(benches[0], [STRANGE] + [USUAL] * (REQUESTS - 1), database_url)
    at = later()

    threads = [
        threading.Thread(target=bench.parts.discoveries.look, args=(at,)) for bench in benches for _ in "12"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(list_tests(benches[0])) == REQUESTS
    with benches[0].sessions() as session:
        assert session.scalar(select(func.count()).select_from(AnomalyWindow)) == 1
        assert session.scalar(select(func.count()).select_from(IncidentEvent)) == 1
    tested = [bench.metric("subtext_anomaly_requests_tested_total", **LABELS) for bench in benches]
    assert sorted(tested) == [0, REQUESTS]


def test_a_look_that_fails_leaves_nothing_behind_and_the_next_one_finds_everything(
    bench: Bench, database_url: str
) -> None:
    store(bench, [STRANGE] + [USUAL] * (REQUESTS - 1), database_url)
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE request_tests RENAME TO away")
    bench.parts.discoveries.look(later())
    assert bench.metric("subtext_anomaly_requests_tested_total", **LABELS) == 0
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE away RENAME TO request_tests")
    assert list_tests(bench) == []

    bench.parts.discoveries.look(later())

    assert len(list_tests(bench)) == REQUESTS
    with bench.sessions() as session:
        assert session.scalars(select(Incident.capture_id)).all() == [capture("r0")]


def test_an_incident_that_cannot_be_written_costs_no_test_and_is_written_later(
    bench: Bench, database_url: str
) -> None:
    store(bench, [STRANGE] + [USUAL] * (REQUESTS - 1), database_url)
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE incident_events RENAME TO away")
    bench.parts.discoveries.look(later())
    assert len(list_tests(bench)) == REQUESTS
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE away RENAME TO incident_events")
    with bench.sessions() as session:
        assert session.scalars(select(Incident.capture_id)).all() == []

    assert bench.parts.incident_repair.step() == 1
    assert bench.parts.incident_repair.step() == 0

    with bench.sessions() as session:
        assert session.scalars(select(Incident.capture_id)).all() == [capture("r0")]


def test_discoveries_without_an_incident_are_all_found_page_by_page(
    bench: Bench, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_repair, "REPAIRED_AT_ONCE", 1)
    store(bench, [STRANGE] * 3 + [USUAL] * (REQUESTS - 3), database_url)
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE incident_events RENAME TO away")
    bench.parts.discoveries.look(later())
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE away RENAME TO incident_events")
    discovered = [test.request_id for test in list_tests(bench) if test.is_discovery]
    assert len(discovered) > 1

    assert bench.parts.incident_repair.step() == len(discovered)

    with bench.sessions() as session:
        assert sorted(session.scalars(select(Incident.request_id))) == sorted(discovered)


@pytest.mark.parametrize("has_reference", [True, False])
def test_a_worker_that_cannot_test_requests_says_why(
    make_bench: Callable[..., Bench], reference: Reference, database_url: str, *, has_reference: bool
) -> None:
    bench = watching(make_bench, reference if has_reference else None, anomaly_fdr=0.001)
    reason = "too_few_requests" if has_reference else "no_reference"
    store(bench, [STRANGE] * REQUESTS, database_url)

    bench.parts.discoveries.look(later())

    assert list_tests(bench) == []
    registry = bench.parts.metrics.registry
    ready = "subtext_anomaly_request_tests_ready"
    assert registry.get_sample_value(ready, LABELS | {"reason": reason}) == 0
    for name in ("requests_tested", "request_discoveries"):
        assert registry.get_sample_value(f"subtext_anomaly_{name}_total", LABELS) == 0
