"""Which of several decoders is the one of then, told by its digest before its weights are loaded."""

from pathlib import Path

import pytest

from tests.support.nla import toy
from workers.nla.engine.nla_decoder import identity_of
from workers.nla.errors import DecoderError
from workers.reread.again import find_decoder


def written(folder: Path, note: str) -> Path:
    toy.write_description(folder / "av", "av", blocks=toy.BLOCKS)
    toy.write_description(folder / "ar", "ar", blocks=toy.LAYER + 1)
    (folder / "ar" / "value_head.safetensors").touch()
    (folder / "av" / "note.txt").write_text(note)
    return folder


def test_the_decoder_with_the_digest_is_found_alone_or_among_others(tmp_path: Path) -> None:
    one, other = (written(tmp_path / name, name) for name in ("one", "other"))
    (tmp_path / "broken" / "av").mkdir(parents=True)
    digests = [identity_of(folder, candidates=1).digest for folder in (one, other)]

    assert digests[0] != digests[1]
    assert find_decoder(one, digests[0], candidates=1) == one
    assert find_decoder(tmp_path, digests[1], candidates=4) == other


def test_another_digest_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "one")
    digest = identity_of(folder, candidates=1).digest

    for where in (folder, tmp_path):
        with pytest.raises(DecoderError, match=f"read by decoder {'0' * 64}.*one: {digest}.*--decoder-dir"):
            find_decoder(where, "0" * 64, candidates=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecoderError, match="holds no decoder"):
        find_decoder(tmp_path / "empty", digest, candidates=1)
