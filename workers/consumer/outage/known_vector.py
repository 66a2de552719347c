"""A vector that belongs to nobody: whether the decoder and the judge can read at all."""

import math

import numpy as np

from subtext_sidecar.anomaly.score import Places
from workers.judge.judge import Judge
from workers.nla.decoder import Decoder, GivenFacts


class DecoderOutageError(Exception):
    """The decoder cannot read what it could read before; a new process may."""


def read(decoder: Decoder, judge: Judge) -> None:
    """Read and judge it; raises what they raise, or DecoderOutageError for figures that are not finite."""
    vectors = np.eye(1, decoder.identity.d_model, dtype=np.float32)
    at_start = Places(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.bool_))
    readings = decoder.read(vectors, GivenFacts(token_ids=[0], phases=["decode"]))
    if not all(math.isfinite(reading.cosine) and math.isfinite(reading.fve) for reading in readings):
        raise DecoderOutageError("the decoder's figures for a known vector are not finite")
    texts, claims = [reading.text for reading in readings], [reading.claims for reading in readings]
    judge.judge(vectors, texts, at_start, [{}], claims)
