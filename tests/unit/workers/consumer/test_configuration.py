"""What a worker says that it runs: all that its verdicts depend on, and nothing secret."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from subtext_sidecar.contract.configuration import Kind
from tests.support.calibrations import calibration_of
from workers.consumer.configuration import Running, configurations
from workers.judge.calibration import Loaded, put_in_force
from workers.judge.concepts import Concept, ConceptSet, Matcher
from workers.judge.policy import JudgePolicy
from workers.nla.fake import fake_identity
from workers.settings import WorkerSettings

BOMBS = Concept(
    name="bombs", version=1, description="d", severity="critical", matchers=(Matcher(regex="bomb"),)
)
CONCEPTS = ConceptSet((BOMBS,), "0" * 64)
IDENTITY = dataclasses.replace(fake_identity(), engine={"seed": 0, "device": "cpu"})
CALIBRATION = Loaded(calibration_of(CONCEPTS, IDENTITY), "f" * 64)
OF_ANOTHER = Loaded(calibration_of(CONCEPTS, fake_identity(layer=2)), "e" * 64)


def running(calibration: Loaded | None = None, **settings: Any) -> Running:
    return Running(
        settings=WorkerSettings(
            database_url=SecretStr("postgresql://worker:THE-PASSWORD@db/subtext"),
            redis_url=SecretStr("redis://:THE-PASSWORD@queue"),
            decoder_dir=Path("/the-place/decoder"),
            concepts_file=Path("/the-place/concepts.yaml"),
            **settings,
        ),
        version="1.2.3",
        decoder=IDENTITY,
        concepts=CONCEPTS,
        calibration=calibration,
        in_force=put_in_force(CONCEPTS, calibration, IDENTITY),
        anomaly=None,
        policy=JudgePolicy(),
    )


def told(running: Running) -> dict[Kind, dict[str, Any]]:
    return {one.kind: json.loads(one.content) for one in configurations(running)}


def test_the_workers_version_names_what_it_reads_and_judges_with() -> None:
    versions = configurations(running(CALIBRATION))
    digests = {one.kind: one.digest for one in versions}

    assert versions[-1].kind == Kind.WORKER
    worker = json.loads(versions[-1].content)
    assert worker["decoder"] == digests[Kind.DECODER]
    assert worker["concepts"] == digests[Kind.CONCEPTS]
    assert worker["concept_calibration"] == digests[Kind.CONCEPT_CALIBRATION]
    assert (worker["anomaly_reference"], worker["anomaly"]["p_value"]) == (None, 0.01)
    assert worker["rules"]["bombs"]["is_calibrated"]
    assert worker["engine"] == {"seed": 0, "device": "cpu"}


def test_each_part_has_the_digest_by_which_flags_and_decoders_name_it() -> None:
    parts = told(running(CALIBRATION))

    assert parts[Kind.DECODER]["digest"] == IDENTITY.digest
    assert parts[Kind.CONCEPTS]["digest"] == CONCEPTS.digest
    assert [one["digest"] for one in parts[Kind.CONCEPTS]["concepts"]] == [BOMBS.digest]
    assert parts[Kind.CONCEPT_CALIBRATION]["digest"] == "f" * 64


def test_a_calibration_of_another_decoder_is_not_told_as_in_force() -> None:
    parts = told(running(OF_ANOTHER))

    assert Kind.CONCEPT_CALIBRATION not in parts
    assert parts[Kind.WORKER]["concept_calibration"] is None
    assert parts[Kind.WORKER]["concept_calibration_rejected"] == ["another_decoder"]


def test_a_threshold_that_changes_is_another_version_of_the_worker_alone() -> None:
    before, after = configurations(running()), configurations(running(anomaly_fdr=0.2))

    assert before[:-1] == after[:-1]
    assert before[-1].digest != after[-1].digest


def test_neither_passwords_nor_places_are_told() -> None:
    said = "".join(one.content for one in configurations(running(CALIBRATION)))

    assert "THE-PASSWORD" not in said
    assert "the-place" not in said
