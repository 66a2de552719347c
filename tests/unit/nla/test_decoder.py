import numpy as np
import pytest

from workers.nla.decoder import Decoder, DecoderIdentity
from workers.nla.fake import FakeDecoder, fake_identity
from workers.nla.nla_decoder import judge
from workers.nla.reconstructor import batches_by_length
from workers.nla.verbalizer import Explanation

VECTORS = np.eye(3, dtype=np.float32)
SAID = [Explanation(f"text {index}", well_formed=True) for index in range(3)]


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


def test_a_reading_is_verified_only_above_the_shuffled_percentile() -> None:
    # cosines 1, 0.8 and 0: FVE 1, 1 - 0.4 / 0.5 and 1 - 2 / 0.5
    rebuilt = np.array([[2, 0, 0], [0.6, 0.8, 0], [1, 0, 0]], np.float32)

    readings = judge(VECTORS, SAID, rebuilt, identity(p95=0.2001))

    assert [reading.fve for reading in readings] == pytest.approx([1, 0.2, -3])
    assert [reading.cosine for reading in readings] == pytest.approx([1, 0.8, 0])
    assert [reading.verified for reading in readings] == [True, False, False]
    assert [reading.text for reading in readings] == ["text 0", "text 1", "text 2"]


def test_an_uncalibrated_decoder_verifies_nothing() -> None:
    readings = judge(VECTORS, SAID, VECTORS, identity(p95=-10, calibration_n=0))

    assert not any(reading.verified for reading in readings)


def test_the_fake_reads_the_same_vector_the_same_way_and_others_differently() -> None:
    decoder: Decoder = FakeDecoder(fake_identity(d_model=3))

    first, second = decoder.read(VECTORS), decoder.read(VECTORS[::-1].copy())

    assert first == second[::-1]
    assert len({reading.text for reading in first}) == 3
    assert all(reading.verified for reading in first)


def test_the_fake_keeps_the_relation_of_fve_and_cosine() -> None:
    reading = FakeDecoder(fake_identity(d_model=3), fve=0.05).read(VECTORS)[0]

    assert 1 - 2 * (1 - reading.cosine) / 0.5 == pytest.approx(0.05)
    assert not reading.verified


@pytest.mark.parametrize("rows", [np.ones((2, 4)), np.ones(3), np.zeros((1, 3)), np.full((1, 3), np.nan)])
def test_the_fake_refuses_what_nothing_can_read(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vectors: "):
        FakeDecoder(fake_identity(d_model=3)).read(rows.astype(np.float32))


def test_texts_are_batched_by_length_and_none_is_lost() -> None:
    sequences = [[0] * length for length in (5, 1, 4, 2, 3)]

    assert list(batches_by_length(sequences, size=2)) == [[1, 3], [4, 2], [0]]
