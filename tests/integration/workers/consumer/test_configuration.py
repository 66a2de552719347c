"""A worker says what it runs from its start to its end, and stores what plugins and sidecars say."""

import datetime as dt
from collections.abc import Callable

from sqlalchemy import select

from service.store.configuration import read
from service.store.configuration.tables import ConfigurationPeriod, ConfigurationVersion
from service.store.identity import DEFAULT_TENANT
from service.store.tables import Explanation, Sample
from subtext_sidecar.contract import streams
from subtext_sidecar.contract.configuration import Configuration, Kind, configuration
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import VERSION, ConfigurationReport, CoverageCount, encode_coverage
from tests.support.letters import letters_of
from tests.support.waiting import wait_until
from tests.support.worker import MODEL, Bench, make_record


def periods(bench: Bench) -> list[ConfigurationPeriod]:
    with bench.sessions() as session:
        return list(session.scalars(select(ConfigurationPeriod).order_by(ConfigurationPeriod.kind)))


def test_what_a_worker_runs_is_in_force_from_its_registration_until_it_stops(bench: Bench) -> None:
    began = periods(bench)
    bench.parts.configuration.step(bench.sessions, [DEFAULT_TENANT])
    reported = periods(bench)
    bench.stop.set()
    bench.parts.report_configuration()
    assert [one.ended_at for one in periods(bench)] == [None] * 3  # a batch may be under way
    bench.parts.end_configuration()
    ended = periods(bench)

    assert [one.kind for one in began] == ["concepts", "decoder", "worker"]
    assert {(one.model, one.layer, one.hop) for one in began} == {(MODEL, 1, "worker")}
    assert len({one.source for one in began}) == 1
    for first, again, last in zip(began, reported, ended, strict=True):
        assert first.id == again.id == last.id
        assert first.last_seen_at < again.last_seen_at < last.last_seen_at
        assert (first.ended_at, again.ended_at, last.ended_at) == (None, None, last.last_seen_at)


def test_two_workers_with_other_thresholds_are_both_in_force(make_bench: Callable[..., Bench]) -> None:
    benches = [make_bench(anomaly_fdr=fdr) for fdr in (0.1, 0.2)]

    with benches[0].sessions() as session:
        found = read.list_in_force(session, read.now(session), MODEL)

    told = [one.view.content for one in found if one.period.kind == "worker"]
    assert [content and content["anomaly"]["fdr"] for content in told] == [0.1, 0.2]
    assert len({one.view.version.digest for one in found if one.period.kind == "decoder"}) == 1


def message(*reports: ConfigurationReport, source: str = "plugin-1") -> bytes:
    return encode_coverage(
        CoverageCount(
            v=VERSION,
            source=source,
            hop=Hop.PLUGIN,
            model=MODEL,
            stratum="uniform",
            minute=0,
            counts={},
            configurations=reports,
        )
    )


def report_of(made: Configuration) -> ConfigurationReport:
    return ConfigurationReport(kind=made.kind, digest=made.digest, content=made.content)


POLICY = configuration(Kind.CAPTURE_POLICY, {"request_rate": 0.5})


def test_what_a_plugin_runs_is_in_force_as_of_when_it_was_told(bench: Bench) -> None:
    seconds, _ = bench.client.time()
    # It has waited for an hour.
    bench.client.xadd(
        streams.COVERAGE_STREAM,
        {streams.FIELD_HEADER: message(report_of(POLICY))},
        id=f"{(seconds - 3600) * 1000}-0",
    )
    wait_until(
        "the report is stored",
        lambda: Kind.CAPTURE_POLICY in {one.kind for one in periods(bench)},
        30,
        meanwhile=bench.parts.intake.step,
    )

    with bench.sessions() as session:
        now = read.now(session)
        then = read.list_in_force(session, now - dt.timedelta(seconds=3580), MODEL)
        today = read.list_in_force(session, now, MODEL)
    [found] = then
    assert found.view.content == {"request_rate": 0.5}
    assert (found.period.source, found.period.hop) == ("plugin-1", "plugin")
    assert Kind.CAPTURE_POLICY not in {one.period.kind for one in today}


def test_a_report_that_cannot_be_true_is_set_aside_and_a_kind_of_later_left_out(bench: Bench) -> None:
    wrong = report_of(POLICY._replace(content='{"request_rate":1.0}'))
    later = ConfigurationReport(kind="of_later", digest=POLICY.digest, content=POLICY.content)
    for told in (message(wrong), message(later, report_of(POLICY), source="plugin-2")):
        bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: told})
    wait_until(
        "both are dealt with",
        lambda: bench.client.xlen(streams.COVERAGE_STREAM) == 0,
        30,
        meanwhile=bench.parts.intake.step,
    )

    assert [one.source for one in periods(bench) if one.hop == "plugin"] == ["plugin-2"]
    [letter] = letters_of(bench.client, streams.COVERAGE_STREAM)
    assert b"capture_policy" in letter[streams.FIELD_ERROR]


def test_rows_name_the_engine_that_took_them_and_the_worker_that_read_them(bench: Bench) -> None:
    bench.add(*make_record(position=0, configuration=POLICY.digest))
    bench.add(*make_record(position=1))  # of a plugin of before
    bench.drain()

    with bench.sessions() as session:
        names = {one.id: (one.kind, one.digest) for one in session.scalars(select(ConfigurationVersion))}
        samples = session.scalars(select(Sample).order_by(Sample.position)).all()
        explanations = session.scalars(select(Explanation)).all()
    assert [names.get(one.configuration_id or 0) for one in samples] == [("plugin", POLICY.digest), None]
    [worker] = [one.version_id for one in periods(bench) if one.kind == "worker"]
    assert [one.configuration_id for one in explanations] == [worker, worker]
