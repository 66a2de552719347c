"""When a reading counts as verified."""

import dataclasses

from workers.nla.fake import fake_identity


def test_a_good_pair_verifies_above_its_shuffled_readings() -> None:
    assert fake_identity().verified_above == fake_identity().shuffled_fve_p95 > 0


def test_no_pair_verifies_below_predicting_the_mean() -> None:
    weak = dataclasses.replace(fake_identity(), shuffled_fve_p95=-0.4)

    assert weak.verified_above == 0.0
