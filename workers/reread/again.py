"""Reads vectors again, each with the decoder that read it first."""

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from workers.consumer.pipeline import storable
from workers.nla.decoder import Decoder, GivenFacts
from workers.nla.errors import DecoderError
from workers.reread.compare import TOLERANCE, Outcome, cannot, changed, compared, why_not
from workers.reread.found import Found

_BATCH: Final = 16
OpenDecoder = Callable[[str, int], Decoder]
"""From digest and candidates to a loaded decoder; DecoderError names the fix when there is none such."""


class Reread(NamedTuple):
    """What came of it."""

    outcomes: list[Outcome]
    changed: dict[str, Any]
    """What decoders run on now and ran on then, where it is another."""


def read_again(
    found: Sequence[Found], open_decoder: OpenDecoder, *, tolerance: float = TOLERANCE, batch: int = _BATCH
) -> Reread:
    """Read each vector with its own decoder and number of candidates, and compare."""
    again = Reread([], {})
    for pinned, group in groupby(sorted(found, key=_pinned), key=_pinned):
        own = list(group)
        try:
            decoder = open_decoder(*pinned)
        except DecoderError as error:
            again.outcomes.extend(cannot(one.recorded, str(error)) for one in own)
            continue
        with closing(decoder):
            engine = decoder.identity.engine
            refused = {id(one): why_not(one.recorded, engine) for one in own}
            again.outcomes.extend(cannot(one.recorded, why) for one in own if (why := refused[id(one)]))
            same = [one for one in own if not refused[id(one)]]
            for one in same:
                again.changed.update(changed(one.recorded, engine))
            for at in range(0, len(same), batch):
                again.outcomes.extend(_read(decoder, same[at : at + batch], tolerance))
    return again


def find_decoder(folder: Path, digest: str, *, candidates: int) -> Path:
    """Return the decoder directory of this digest: ``folder`` itself, or one in it.

    Raises DecoderError naming the digests that there are.
    """
    from workers.nla.engine.nla_decoder import identity_of

    folders = [folder] if (folder / "av").is_dir() else sorted(one.parent for one in folder.glob("*/av"))
    there = []
    for one in folders:
        try:
            its = identity_of(one, candidates=candidates).digest
        except DecoderError as error:
            its = f"unusable ({error})"
        if its == digest:
            return one
        there.append(f"{one.name}: {its}")
    raise DecoderError(
        f"it was read by decoder {digest}, and {folder} holds {'; '.join(there) or 'no decoder'}:"
        " give the decoder of then with --decoder-dir"
    )


def _pinned(one: Found) -> tuple[str, int]:
    return one.recorded.decoder_digest, one.recorded.candidates


def _read(decoder: Decoder, found: Sequence[Found], tolerance: float) -> list[Outcome]:
    vectors = np.stack([one.vector for one in found])
    given = GivenFacts([one.token_id for one in found], [one.phase for one in found])
    readings = decoder.read(vectors, given)
    return [
        compared(one.recorded, reading, storable(reading.text), tolerance=tolerance)
        for one, reading in zip(found, readings, strict=True)
    ]
