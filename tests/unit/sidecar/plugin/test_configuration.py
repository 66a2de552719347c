"""What an engine says that it runs."""

import json
from typing import Any

import msgspec

from subtext_sidecar.contract.configuration import Kind, configuration, digest
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.configuration import followed
from subtext_sidecar.plugin.settings import CaptureSettings

MODEL = configuration(Kind.MODEL, {"revision": "main"})
SETTINGS = CaptureSettings(layer=20, socket="ipc:///the-place/s", secret_file="/the-place/secret")
POLICY = CapturePolicy(request_rate=0.5)


def told(policy: CapturePolicy | None = POLICY, engines: int = 1) -> dict[str, Any]:
    reports = followed(MODEL, SETTINGS, {"vllm": "1"}, policy, engines).reports
    assert all(one.digest == digest(one.content) for one in reports)
    return {one.kind: json.loads(one.content) for one in reports}


def test_the_plugins_version_names_the_model_and_the_policy_that_is_followed() -> None:
    found = followed(MODEL, SETTINGS, {"vllm": "1"}, POLICY, 1)
    digests = {one.kind: one.digest for one in found.reports}

    plugin = told()[Kind.PLUGIN]
    assert (plugin["model"], plugin["capture_policy"]) == (MODEL.digest, digests[Kind.CAPTURE_POLICY])
    assert told()[Kind.CAPTURE_POLICY] == msgspec.to_builtins(POLICY)
    assert found.digest == digests[Kind.PLUGIN]


def test_another_policy_is_another_version_of_plugin_and_policy_and_the_same_of_the_model() -> None:
    before, after = (
        followed(MODEL, SETTINGS, {}, CapturePolicy(request_rate=rate), 1) for rate in (0.5, 1.0)
    )

    assert before.digest != after.digest
    assert [one.kind for one in before.reports if one in after.reports] == [Kind.MODEL]


def test_an_engine_that_captures_nothing_follows_no_policy() -> None:
    assert Kind.CAPTURE_POLICY not in told(None)
    assert told(None)[Kind.PLUGIN]["capture_policy"] is None


def test_places_of_files_and_sockets_are_not_told() -> None:
    assert "the-place" not in json.dumps(told())
