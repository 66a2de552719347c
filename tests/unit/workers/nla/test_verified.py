"""When a reading counts as verified."""

import dataclasses

from workers.nla.decoder import applied
from workers.nla.fake import fake_identity


def test_every_class_of_positions_has_its_own_threshold() -> None:
    identity = dataclasses.replace(
        fake_identity(), verified_above={"template": 0.1, "prompt": 0.2, "answer": 0.3}
    )

    assert [identity.threshold(kind) for kind in ("template", "prompt", "answer")] == [0.1, 0.2, 0.3]


def test_a_pair_without_classes_verifies_above_its_shuffled_readings() -> None:
    assert fake_identity().threshold("answer") == fake_identity().shuffled_fve_p95 > 0


def test_no_pair_verifies_below_predicting_the_mean() -> None:
    weak = dataclasses.replace(fake_identity(), shuffled_fve_p95=-0.4)

    assert weak.threshold("answer") == 0.0
    assert dataclasses.replace(weak, verified_above={"answer": -0.1}).threshold("answer") == 0.0


def test_a_template_token_at_the_end_of_a_prompt_verifies_no_less() -> None:
    """The class goes by the token, and a client can write each of them."""
    assert applied({"template": 0.5, "prompt": 0.2, "answer": 0.3}) == {
        "template": 0.2,
        "prompt": 0.2,
        "answer": 0.3,
    }
    assert applied({"template": 0.1, "prompt": 0.2, "answer": 0.3})["template"] == 0.1
    assert applied({}) == {}
