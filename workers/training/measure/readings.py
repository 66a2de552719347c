"""What the trained verbalizer writes freely, kept in files so that a killed run goes on.

The reconstructor is adapted to readings of training vectors, the verbalizer to the best of them, and the
pair is measured on readings of held-out vectors.
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
"""Vectors between two writes of the file: what a kill can lose."""


class Candidates(NamedTuple):
    """All readings of one vector."""

    answers: list[list[int]]
    """Token ids as the AV wrote them, end token excluded."""
    texts: list[str]
    """The AR's texts: the first sentence and what was written, without the read token."""
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
    """Read every row `candidates` times into a file, going on behind what it already holds."""
    import torch

    together = precision.sized(cpu=_TOGETHER, cuda=_TOGETHER_CUDA)
    done = _keep_portions(path, len(material.sentences), together)
    progress = Progress(f"reading {path.stem}", total=len(material.sentences), log=log, done=done)
    with av.merged():
        for start in range(done, len(material.sentences), together):
            # Seeded by place, so that a run that went on reads what an undisturbed one would have.
            torch.manual_seed(seed + start)
            portion = material.take(np.arange(start, min(start + together, len(material.sentences))))
            found = read(av, writer, portion, candidates=candidates, temperature=temperature)
            with path.open("a") as file:
                file.write(_lines(found))
            progress.advance(start + len(found))
    return load_readings(path)


def read(
    av: Verbalizer, writer: ReadingWriter, material: Material, *, candidates: int, temperature: float
) -> list[Candidates]:
    """Read every row of a small set: greedily at temperature 0."""
    prompts = [
        writer.prompt(int(context[-1]), sentence)
        for sentence, context in zip(material.sentences, material.context, strict=True)
    ]
    # All candidates of all rows at once: a step costs little more for many rows than for few.
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
    """Return how many rows are read, after dropping those of a portion that a kill cut short."""
    found = load_readings(path) if path.exists() else []
    done = len(found) if len(found) == total else len(found) - len(found) % together
    if done < len(found):
        # Rows are sampled together: the others of this portion come out the same only beside these.
        path.write_text(_lines(found[:done]))
    return done


def _lines(found: Sequence[Candidates]) -> str:
    return "".join(json.dumps(one._asdict()) + "\n" for one in found)


def load_readings(path: Path) -> list[Candidates]:
    """Return what `keep_readings` wrote; a line that a kill cut short is left out."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [Candidates(**json.loads(line)) for line in whole.splitlines()]


def sequences(
    writer: ReadingWriter, found: Sequence[Candidates], tokens: NDArray[np.int64]
) -> list[list[int]]:
    """Return the AR's prompts of all candidates, all of one vector after those of the one before."""
    return [
        writer.ar_ids(text, int(token))
        for one, token in zip(found, tokens, strict=True)
        for text in one.texts
    ]


def _candidates(writer: ReadingWriter, sentence: str, answers: list[list[int]]) -> Candidates:
    ended = [writer.cut(answer) for answer in answers]
    is_finished = [writer.end in answer for answer in answers]
    parsed = [parse_continuation(writer.decode(answer)) for answer in ended]
    texts = [
        # What lost the format is shown to the AR as the worker shows it.
        explanation(sentence, said) if said else f"{sentence}{EXPECTS}{writer.decode(answer)}"
        for said, answer in zip(parsed, ended, strict=True)
    ]
    formed = [said is not None and finished for said, finished in zip(parsed, is_finished, strict=True)]
    return Candidates(ended, texts, formed)
