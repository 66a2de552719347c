"""Metrics name a model as records do, so that a query over all processes finds the same one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.store.tables import FlagStatus
from subtext_sidecar.anomaly import fit
from subtext_sidecar.anomaly.score import Reference
from subtext_sidecar.contract import dead_letters, streams
from tests.support.worker import D_MODEL, MODEL, STREAM, Bench, make_record
from workers.consumer.metrics import WorkerMetrics
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings

SERVED = "served-name"


@pytest.fixture
def served_name(worker_settings: WorkerSettings) -> str:
    object.__setattr__(worker_settings, "served_model", SERVED)
    return SERVED


def bombs(_: NDArray[np.float32]) -> str:
    return "talks of a bomb"


def usual_traffic() -> Reference:
    """A reference to which the records of these tests are strange."""
    noise = np.random.default_rng(0).standard_normal((4000, D_MODEL))
    rows = 0.01 * noise + np.eye(D_MODEL)[0]
    return fit.fit(rows, np.arange(len(rows)), model=SERVED, layer=1).reference


def families_with_a_model(metrics: WorkerMetrics) -> set[str]:
    return {
        metric.describe()[0].name
        for metric in vars(metrics).values()
        if "model" in getattr(metric, "_labelnames", ())
    }


def test_every_model_label_is_the_served_name(
    served_name: str, make_bench: Callable[..., Bench], kept_vectors: Callable[[str], dict[str, Path]]
) -> None:
    bench = make_bench(FakeDecoder(text=bombs), usual_traffic(), **kept_vectors(served_name))
    assert served_name != MODEL
    for position in range(2):
        bench.add(*make_record(position=position, model=served_name))

    bench.drain()

    found = {
        (family.name, sample.labels["model"])
        for family in bench.parts.metrics.registry.collect()
        for sample in family.samples
        if "model" in sample.labels
    }
    assert found == {(name, served_name) for name in families_with_a_model(bench.parts.metrics)}


def test_counters_that_alerts_watch_for_an_increase_are_there_before_the_first_event(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))

    registry = bench.parts.metrics.registry
    for status in FlagStatus:
        of_concept = {"model": MODEL, "concept": "bombs", "severity": "critical", "status": status}
        assert registry.get_sample_value("subtext_concept_flags_total", of_concept) == 0
    for stream in (STREAM, streams.COVERAGE_STREAM):
        for reason in dead_letters.REASONS:
            letters = {"stream": stream, "reason": reason}
            assert registry.get_sample_value("subtext_stream_dead_letters_total", letters) == 0
