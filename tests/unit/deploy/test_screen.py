"""What the demo's sidecar starts with: its screen's reference and its policy file."""

from deploy.local import launch
from deploy.local.model import MODEL_NAME
from subtext_sidecar.anomaly.reference import digest, load_reference
from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.local.policy import ScreenPolicy, parse_document
from subtext_sidecar.screen.screening import check_policy
from workers.judge.anomalies import check_fits
from workers.nla.calibration import load_anomaly, load_calibration
from workers.nla.checkpoint.assemble import pair_digest


def test_the_shipped_reference_is_for_the_demos_model_and_layer_and_fits_the_default_policy() -> None:
    reference = load_reference(launch.SCREEN_FILE)

    assert (reference.model, reference.layer) == (MODEL_NAME, launch.LAYER)
    check_policy(ScreenPolicy(), Detector(reference))


def test_the_demos_screen_and_worker_have_one_reference_of_the_shipped_pair() -> None:
    pair = launch.SHIPPED_DECODER
    calibration = load_calibration(pair, decoder_digest=pair_digest(pair))
    reference = load_anomaly(pair)

    assert calibration is not None
    assert reference is not None
    assert digest(reference) == digest(load_reference(launch.SCREEN_FILE))
    figures = calibration.figures
    check_fits(reference, models={figures.model}, layer=figures.layer, d_model=figures.d_model)


def test_the_shipped_policy_is_the_default_one_spelled_out() -> None:
    policies = parse_document(launch.POLICY_FILE.read_bytes(), "policy")

    assert policies.capture is None
    assert policies.screen == ScreenPolicy()
