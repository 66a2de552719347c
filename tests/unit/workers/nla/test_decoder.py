import dataclasses
from typing import Any

import numpy as np
import pytest

from workers.nla.candidates import RoundTrip, agreement, choose
from workers.nla.claims import Continuation, VectorLabels
from workers.nla.decoder import Decoder, DecoderIdentity, GivenFacts, Reading
from workers.nla.engine.nla_decoder import check_candidates, judge
from workers.nla.engine.reconstructor import batches_by_length
from workers.nla.engine.verbalizer import EngineSettings, Explanation
from workers.nla.errors import CalibrationError
from workers.nla.fake import FakeDecoder, fake_identity

VECTORS = np.eye(3, dtype=np.float32)
GIVEN = GivenFacts([7, 8, 9], ["prefill", "decode", "decode"])
SAID = [[Explanation(f"text {index}", well_formed=True)] for index in range(3)]
# cosines 1, 0.8 and 0: FVE 1, 1 - 0.4 / 0.5 and 1 - 2 / 0.5
REBUILT = np.array([[2, 0, 0], [0.6, 0.8, 0], [1, 0, 0]], np.float32)[:, None]


def identity(p95: float, calibration_n: int = 100) -> DecoderIdentity:
    return DecoderIdentity(
        name="toy",
        digest="d",
        model="m",
        layer=1,
        d_model=3,
        fve_baseline=0.5,
        shuffled_fve_p95=p95,
        calibration_n=calibration_n,
    )


def judged(
    of: DecoderIdentity, said: Any = SAID, rebuilt: np.ndarray = REBUILT, **known: Any
) -> list[Reading]:
    trip = RoundTrip(said, rebuilt.astype(np.float32))
    usual: dict[str, Any] = {
        "classes": ["template", "prompt", "answer"],
        "tokens": ["<a>", " b", " c"],
        "expected": None,
        "is_typical": np.ones(3, bool),
    }
    return judge(VECTORS, trip, choose(VECTORS, trip.rebuilt), identity=of, **(usual | known))


def test_a_reading_is_verified_only_above_the_shuffled_percentile() -> None:
    readings = judged(identity(p95=0.2001))

    assert [reading.fve for reading in readings] == pytest.approx([1, 0.2, -3])
    assert [reading.cosine for reading in readings] == pytest.approx([1, 0.8, 0])
    assert [reading.verified for reading in readings] == [True, False, False]
    assert [reading.text for reading in readings] == ["text 0", "text 1", "text 2"]
    assert [reading.position_class for reading in readings] == ["template", "prompt", "answer"]
    assert {(reading.fve_beyond_token, reading.claims, reading.margin) for reading in readings} == {
        (None, None, None)
    }


def test_an_uncalibrated_decoder_verifies_nothing() -> None:
    readings = judged(identity(p95=-10, calibration_n=0), rebuilt=VECTORS[:, None])

    assert not any(reading.verified for reading in readings)


def test_only_what_goes_beyond_the_token_counts_where_token_means_are_known() -> None:
    # The token's mean leaves 0.25 of the first vector open and all of the others'.
    expected = np.array([[0.5, 0, 0], [0, 0, 0], [0, 0, 0]])
    of = dataclasses.replace(
        identity(p95=0.9), verified_above={"template": 0.9, "prompt": 0.5, "answer": 0.5}
    )

    readings = judged(of, expected=expected)

    # Squared distances 0, 0.4 and 2, against 0.25, 1 and 1 from the token's mean.
    assert [reading.fve_beyond_token for reading in readings] == pytest.approx([1, 0.6, -1])
    assert [reading.verified for reading in readings] == [True, True, False]


def test_a_vector_that_is_not_like_benign_ones_is_never_verified() -> None:
    readings = judged(identity(p95=-10), rebuilt=VECTORS[:, None], is_typical=np.array([True, False, True]))

    assert [reading.verified for reading in readings] == [True, False, True]


def test_a_reading_that_lost_the_format_is_never_verified() -> None:
    said = [[said._replace(well_formed=False)] for [said] in SAID]

    assert not any(reading.verified for reading in judged(identity(p95=-10), said, VECTORS[:, None]))


LABELLED = VectorLabels("prose", "medicine", None, (), {"medicine": 0.9, "law": 0.001}, {"self-harm": 0.02})


def labelled(expects: str) -> Explanation:
    text = f'Prose. Expects "{expects}". Reads "It is'
    return Explanation(
        text, well_formed=True, labelled=LABELLED, continuation=Continuation(expects, "It is")
    )


LOST = Explanation("Prose. Expects on and on", well_formed=False, labelled=LABELLED)


def test_the_candidate_that_rebuilds_the_vector_best_is_read_and_says_how_sure_it_is() -> None:
    said = [[labelled(" to"), labelled(" a"), labelled(" to")]] * 3
    rebuilt = np.stack([np.roll(VECTORS, 1, axis=0), VECTORS, 3 * VECTORS + 1], axis=1)

    reading = judged(identity(p95=0.2), said, rebuilt)[1]

    assert reading.text == 'Prose. Expects " a". Reads "It is b"'
    assert reading.candidates == 3
    assert reading.cosine == pytest.approx(1)
    assert reading.margin == pytest.approx(1 - 4 / 18**0.5)
    assert reading.claims is not None
    assert reading.claims.expects == " a"
    assert reading.claims.expects_agreement == pytest.approx(1 / 3)
    assert (reading.claims.area, reading.claims.register) == ("medicine", "prose")
    assert reading.claims.areas == {"medicine": 0.9}
    assert reading.claims.kind_scores == {"self-harm": 0.02}


def test_a_reading_that_lost_the_format_is_shown_as_it_is_and_still_has_its_labels() -> None:
    reading = judged(identity(p95=0.2), [[LOST] * 2] * 3, np.stack([VECTORS, VECTORS], axis=1))[0]

    assert reading.text == "Prose. Expects on and on"
    assert reading.margin == 0
    assert reading.claims is not None
    assert (reading.claims.expects, reading.claims.expects_agreement) == (None, None)


def test_candidates_agree_by_what_they_expect() -> None:
    said = [
        labelled(" to"),
        labelled(" to"),
        labelled(" a"),
        Explanation("Prose", well_formed=False, labelled=LABELLED),
    ]

    assert [agreement(said, best) for best in range(4)] == [0.5, 0.5, 0.25, None]
    assert agreement(said[:1], 0) is None


def test_another_number_of_candidates_than_calibrated_is_refused_with_both() -> None:
    class Figures:
        candidates = 4

    class Calibration:
        figures = Figures

    calibration: Any = Calibration
    check_candidates(calibration, EngineSettings(candidates=4))
    check_candidates(None, EngineSettings(candidates=2))
    with pytest.raises(CalibrationError, match=r"calibrated with 4, .* writes 2; set SUBTEXT_CANDIDATES=4"):
        check_candidates(calibration, EngineSettings(candidates=2))


def test_the_fake_reads_the_same_vector_the_same_way_and_others_differently() -> None:
    decoder: Decoder = FakeDecoder(fake_identity(d_model=3))

    first, second = decoder.read(VECTORS, GIVEN), decoder.read(VECTORS[::-1].copy(), GIVEN)

    assert first == second[::-1]
    assert len({reading.text for reading in first}) == 3
    assert all(reading.verified for reading in first)


def test_the_fake_keeps_the_relation_of_fve_and_cosine() -> None:
    reading = FakeDecoder(fake_identity(d_model=3), fve=0.05).read(VECTORS, GIVEN)[0]

    assert 1 - 2 * (1 - reading.cosine) / 0.5 == pytest.approx(0.05)
    assert (reading.fve_beyond_token, reading.candidates, reading.margin) == (0.05, 1, None)
    assert not reading.verified


@pytest.mark.parametrize("rows", [np.ones((2, 4)), np.ones(3), np.zeros((1, 3)), np.full((1, 3), np.nan)])
def test_the_fake_refuses_what_nothing_can_read(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vectors: "):
        FakeDecoder(fake_identity(d_model=3)).read(rows.astype(np.float32), GIVEN)


def test_the_fake_refuses_vectors_without_their_tokens() -> None:
    with pytest.raises(ValueError, match="one of each for 2 vectors"):
        FakeDecoder(fake_identity(d_model=3)).read(VECTORS[:2], GIVEN)


def test_texts_are_batched_by_length_and_none_is_lost() -> None:
    sequences = [[0] * length for length in (5, 1, 4, 2, 3)]

    assert list(batches_by_length(sequences, size=2)) == [[1, 3], [4, 2], [0]]
