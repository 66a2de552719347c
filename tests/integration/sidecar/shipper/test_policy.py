"""The policy file, from its bytes to the screen and to the plugin's side of the second socket."""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.contract.configuration import Kind
from subtext_sidecar.contract.record import decode_coverage
from subtext_sidecar.contract.streams import COVERAGE_STREAM
from subtext_sidecar.local import wire
from subtext_sidecar.local.policy import CapturePolicy, PolicyUpdate
from subtext_sidecar.local.policy_channel import PolicySubscriber
from tests.integration.sidecar.shipper.stage import Stage, over_strata, totals
from tests.support.records import STREAM, block_frames, status
from tests.support.screens import reference


def heard(stage: Stage, subscriber: PolicySubscriber) -> PolicyUpdate:
    """The next policy that the plugin learns."""
    updates: list[PolicyUpdate] = []

    def has_come() -> bool:
        if (update := subscriber.latest()) is not None:
            updates.append(update)
        return bool(updates)

    stage.step_until(has_come)
    return updates[0]


def test_without_a_file_plugins_are_told_to_keep_to_their_start_policy(start: Any) -> None:
    stage = start()
    with contextlib.closing(stage.subscribe()) as subscriber:
        assert heard(stage, subscriber) == PolicyUpdate(version="", capture=None)


def test_a_changed_file_reaches_the_plugin_and_the_screen_without_a_restart(
    start: Any, client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"capture": {"request_rate": 0.5}}))
    stage = start(policy_file=file)
    caplog.set_level(logging.INFO, "subtext.sidecar")
    stage.send(wire.STATUS, wire.encode_status(status()))

    with contextlib.closing(stage.subscribe()) as subscriber:
        first = heard(stage, subscriber)
        file.write_text(json.dumps({"screen": {"baseline_rate": 1e-9}}))
        second = heard(stage, subscriber)

    assert first.capture == CapturePolicy(request_rate=0.5)
    assert second.capture is None
    assert second.version not in {"", first.version}
    assert caplog.messages.count("policy_loaded") == 2
    assert stage.value("subtext_screen_keep_ratio", model="m", part="baseline") == 1e-9
    stage.send(wire.BLOCK, *block_frames(rows=4))
    stage.step_until(lambda: over_strata(totals(client, "sidecar")).get("thinned") == 4)
    assert client.xlen(STREAM) == 0


def test_a_bad_file_is_counted_and_said_once_and_changes_nothing(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"screen": {"baseline_rate": 0.25}}))
    stage = start(policy_file=file)
    stage.send(wire.STATUS, wire.encode_status(status()))
    with contextlib.closing(stage.subscribe()) as subscriber:
        version = heard(stage, subscriber).version

    file.write_text(json.dumps({"capture": {"request_rate": 0.1}, "screen": {"baseline_rate": 7}}))
    stage.step_until(lambda: stage.value("subtext_policy_errors_total") == 1)
    with contextlib.closing(stage.subscribe()) as subscriber:
        assert heard(stage, subscriber).version == version

    assert stage.value("subtext_policy_errors_total") == 1
    assert stage.value("subtext_screen_keep_ratio", model="m", part="baseline") == 0.25
    assert caplog.messages.count("policy_refused") == 1


def test_a_p_value_that_the_reference_cannot_give_is_a_bad_policy(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"screen": {"anomaly_p_value": 1e-7}}))

    stage = start(policy_file=file, detector=Detector(reference()))

    stage.step_until(lambda: stage.value("subtext_policy_errors_total") == 1)


def test_a_sidecar_that_never_could_read_its_file_tells_plugins_nothing(start: Any, tmp_path: Path) -> None:
    stage = start(policy_file=tmp_path / "missing.json")
    with contextlib.closing(stage.subscribe()) as subscriber:
        stage.step_until(lambda: stage.value("subtext_policy_errors_total") == 1)
        (tmp_path / "missing.json").write_text(json.dumps({"capture": {"request_rate": 0.75}}))

        assert heard(stage, subscriber).capture == CapturePolicy(request_rate=0.75)


def test_the_metric_tells_whether_the_plugin_follows(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"capture": {"request_rate": 0.5}}))
    stage = start(policy_file=file)
    with contextlib.closing(stage.subscribe()) as subscriber:
        version = heard(stage, subscriber).version

    stage.send(wire.STATUS, wire.encode_status(status(policy_version=version)))
    stage.step_until(lambda: stage.value("subtext_policy_applied", model="m") == 1)
    stage.send(wire.STATUS, wire.encode_status(status(policy_version="")))
    stage.step_until(lambda: stage.value("subtext_policy_applied", model="m") == 0)


def told_screen_policies(client: Any) -> list[float]:
    """The baseline's rates that the sidecar said it screens by, in their order, each once."""
    counts = [decode_coverage(fields[b"h"]) for _, fields in client.xrange(COVERAGE_STREAM)]
    rates = [
        json.loads(one.content)["baseline_rate"]
        for count in counts
        for one in count.configurations
        if one.kind == Kind.SCREEN_POLICY
    ]
    return list(dict.fromkeys(rates))


def test_the_screen_policy_that_is_told_is_the_one_that_is_followed(
    start: Any, client: Any, tmp_path: Path
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"screen": {"baseline_rate": 0.5}}))
    stage = start(policy_file=file)

    def is_told(rate: float) -> bool:
        # A plugin that is silent for long is nobody to tell anything of.
        stage.send(wire.STATUS, wire.encode_status(status()))
        return rate in told_screen_policies(client)

    stage.step_until(lambda: is_told(0.5))
    file.write_text(json.dumps({"screen": {"baseline_rate": 2.0}}))  # no share
    stage.step_until(lambda: stage.value("subtext_policy_errors_total") == 1)
    file.write_text(json.dumps({"screen": {"baseline_rate": 0.25}}))
    stage.step_until(lambda: is_told(0.25))

    assert told_screen_policies(client) == [0.5, 0.25]
