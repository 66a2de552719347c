"""What the demo's sidecar starts with: its screen's reference and its policy file."""

from deploy.local import launch
from deploy.local.model import MODEL_NAME
from subtext_sidecar.anomaly.reference import load_reference
from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.local.policy import ScreenPolicy, parse_document
from subtext_sidecar.screen.screening import check_policy


def test_the_shipped_reference_is_for_the_demos_model_and_layer_and_fits_the_default_policy() -> None:
    reference = load_reference(launch.SCREEN_FILE)

    assert (reference.model, reference.layer) == (MODEL_NAME, launch.LAYER)
    check_policy(ScreenPolicy(), Detector(reference))


def test_the_shipped_policy_is_the_default_one_spelled_out() -> None:
    policies = parse_document(launch.POLICY_FILE.read_bytes(), "policy")

    assert policies.capture is None
    assert policies.screen == ScreenPolicy()
