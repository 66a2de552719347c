"""Readings that the trained verbalizer writes, kept in resumable files.

Readings of training vectors serve to adapt the reconstructor, and the best of them to adapt the verbalizer.
Readings of held-out vectors serve to measure the pair.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.claims import EXPECTS, explanation, parse_continuation
from workers.training.data.material import Material
from workers.training.data.targets import ReadingWriter
from workers.training.fit import precision
from workers.training.fit.verbalizer import Verbalizer
from workers.training.progress import Progress

MAX_NEW_TOKENS = 32
_TOGETHER, _TOGETHER_CUDA = 64, 256
"""Vectors between two writes of the file, the most that a kill can lose."""


class Candidates(NamedTuple):
    """All readings of one vector."""

    answers: list[list[int]]
    """The AV's token ids, end token excluded."""
    texts: list[str]
    """The AR's texts: first sentence and answer, without the read token."""
    well_formed: list[bool]


def keep_readings(
    path: Path,
    av: Verbalizer,
    writer: ReadingWriter,
    material: Material,
    *,
    candidates: int,
    temperature: float,
    seed: int,
    log: Callable[[str], None],
) -> list[Candidates]:
    """Write `candidates` readings of every row into a file, resuming after the rows it already holds."""
    import torch

    together = precision.sized(cpu=_TOGETHER, cuda=_TOGETHER_CUDA)
    done = _keep_portions(path, len(material.sentences), together)
    progress = Progress(f"reading {path.stem}", total=len(material.sentences), log=log, done=done)
    with av.merged():
        for start in range(done, len(material.sentences), together):
            # A seed per portion gives a resumed run the same readings as an uninterrupted one.
            torch.manual_seed(seed + start)
            portion = material.take(np.arange(start, min(start + together, len(material.sentences))))
            batch = read(av, writer, portion, candidates=candidates, temperature=temperature)
            with path.open("a") as file:
                file.write(_lines(batch))
            progress.advance(start + len(batch))
    return load_readings(path)


def read(
    av: Verbalizer, writer: ReadingWriter, material: Material, *, candidates: int, temperature: float
) -> list[Candidates]:
    """Return `candidates` readings of every row; temperature 0 decodes greedily."""
    prompts = [
        writer.prompt(int(context[-1]), sentence)
        for sentence, context in zip(material.sentences, material.context, strict=True)
    ]
    # One batch for all candidates of all rows, because a step costs little more for many rows than for few.
    written = av.write(
        prompts * candidates,
        np.tile(material.centred, (candidates, 1)),
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=temperature,
    )
    rounds = [written[start : start + len(prompts)] for start in range(0, len(written), len(prompts))]
    return [
        _candidates(writer, sentence, [answers[row] for answers in rounds])
        for row, sentence in enumerate(material.sentences)
    ]


def _keep_portions(path: Path, total: int, together: int) -> int:
    """Return the number of complete rows, after dropping an incomplete portion."""
    readings = load_readings(path) if path.exists() else []
    done = len(readings) if len(readings) == total else len(readings) - len(readings) % together
    if done < len(readings):
        # A portion is sampled as one batch, so only the whole portion is reproducible.
        path.write_text(_lines(readings[:done]))
    return done


def _lines(readings: Sequence[Candidates]) -> str:
    return "".join(json.dumps(one._asdict()) + "\n" for one in readings)


def load_readings(path: Path) -> list[Candidates]:
    """Return the readings in a file of `keep_readings`; a truncated last line is removed."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [Candidates(**json.loads(line)) for line in whole.splitlines()]


def sequences(
    writer: ReadingWriter, readings: Sequence[Candidates], tokens: NDArray[np.int64]
) -> list[list[int]]:
    """Return the AR's prompts for all candidates, grouped by vector."""
    return [
        writer.ar_ids(text, int(token))
        for one, token in zip(readings, tokens, strict=True)
        for text in one.texts
    ]


def _candidates(writer: ReadingWriter, sentence: str, answers: list[list[int]]) -> Candidates:
    ended = [writer.cut(answer) for answer in answers]
    is_finished = [writer.end in answer for answer in answers]
    parsed = [parse_continuation(writer.decode(answer)) for answer in ended]
    texts = [
        # Answers that break the format are rendered like the worker renders them.
        explanation(sentence, continuation)
        if continuation
        else f"{sentence}{EXPECTS}{writer.decode(answer)}"
        for continuation, answer in zip(parsed, ended, strict=True)
    ]
    formed = [
        continuation is not None and finished
        for continuation, finished in zip(parsed, is_finished, strict=True)
    ]
    return Candidates(ended, texts, formed)
