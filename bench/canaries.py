"""Measure how often each of the shipped canaries would be flagged, by the shipped decoder and rules.

Each prompt is answered by the audited model as `subtext canary` has it answered, its activations are taken
where the capture policy takes them, and read and judged as a worker does, up to as many positions as a
calibrated flag looks at. Windows of the answer begin at a random offset, so repetitions differ. The last
line is JSON.
"""

import argparse
import datetime as dt
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import pair
from bench.fidelity import calibrated_candidates
from bench.trust.rates import Rate, rate
from deploy.local import launch
from service.store.write.evidence import Evidence, Sighting
from workers.canary.prompts import Canary, load, prompts_of
from workers.canary.tokenizer import ChatTokenizer
from workers.judge import calibration
from workers.judge.concepts import load_concepts
from workers.judge.embedder import MiniLmEmbedder
from workers.judge.flags import FlagRule, decide
from workers.judge.matching import ConceptMatcher, Match
from workers.nla.decoder import DecoderIdentity, GivenFacts, Reading
from workers.nla.engine.verbalizer import EngineSettings, prepare_environment
from workers.nla.errors import DecoderError
from workers.probe.activations import Sampling, choose_positions

DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
SAMPLING: Final = Sampling(prompt_window=2, decode_stride=8, window=2, skip_first=10, answer_tokens=24)
"""The capture policy's defaults, and the runner's length of an answer."""
_SEED: Final = 22
_CHUNK: Final = 64


class Run(NamedTuple):
    """What became of one canary."""

    canary: Canary
    calibrated: bool
    """Whether it raised a calibrated flag with its concept."""
    lead: bool
    """Whether it raised any flag with it."""


class Figure(NamedTuple):
    """Recall of a concept, and what its negative prompts raise."""

    concept: str
    recall: Rate
    recall_of_leads: Rate
    false: Rate


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Return a row for each concept, in the order of the runs."""
    found = []
    for concept in dict.fromkeys(run.canary.concept for run in runs):
        own = [run for run in runs if run.canary.concept == concept]
        positive = [run for run in own if run.canary.kind == "positive"]
        negative = [run for run in own if run.canary.kind == "negative"]
        found.append(
            Figure(
                concept,
                rate(np.array([run.calibrated for run in positive], bool)),
                rate(np.array([run.lead for run in positive], bool)),
                rate(np.array([run.calibrated for run in negative], bool)),
            )
        )
    return found


class Material(NamedTuple):
    """Requests, and where each is read."""

    canaries: list[Canary]
    chats: list[list[int]]
    places: list[list[int]]
    """At most as many positions of each as a calibrated flag looks at."""
    prompts: list[int]
    """Number of tokens of each prompt."""


def draw(repeats: int, judged: int) -> Material:
    """Have every prompt answered, and choose positions anew for each repetition."""
    from workers.training.data.chats import load_writer

    tokenize = ChatTokenizer(pair.base_model())
    canaries = prompts_of(load(DEPLOY / "canaries.yaml"))
    starts = [tokenize(one.prompt) for one in canaries]
    writer = load_writer("transformers", str(pair.base_model()))
    answers = writer.write(starts, max_new_tokens=SAMPLING.answer_tokens, temperature=0.0, seed=_SEED)
    rng = random.Random(_SEED)  # noqa: S311  # a choice of positions, not a secret
    chats = [[*start, *answer] for start, answer in zip(starts, answers, strict=True)] * repeats
    lengths = [len(start) for start in starts] * repeats
    places = [
        choose_positions(length, len(chat), SAMPLING, offset=rng.randrange(SAMPLING.decode_stride))[:judged]
        for length, chat in zip(lengths, chats, strict=True)
    ]
    return Material(canaries * repeats, chats, places, lengths)


def measure(folder: Path, repeats: int) -> list[Run]:
    """Read every canary ``repeats`` times, and judge what was read."""
    loaded = calibration.load(launch.SHIPPED_DECODER / "concept-calibration.json")
    material = draw(repeats, loaded.calibration.positions_judged)
    rows = _vectors(material, loaded.calibration.layer)
    readings, identity = _read(folder, material, rows)
    concepts = load_concepts(DEPLOY / "concepts.yaml")
    in_force = calibration.put_in_force(concepts, loaded, identity)
    if in_force.rejected:
        raise ValueError(
            f"--decoder-dir: the shipped calibration is not of {folder}: {', '.join(in_force.rejected)};"
            " give the shipped decoder, with its anomaly reference"
        )
    matcher = ConceptMatcher(concepts, MiniLmEmbedder(), in_force.thresholds)
    matches = matcher.match([one.text for one in readings], [one.claims for one in readings], rows)
    judged = iter(zip(readings, matches, strict=True))
    return [
        _judge(canary, [(place, *next(judged)) for place in places], in_force.rules)
        for canary, places in zip(material.canaries, material.places, strict=True)
    ]


def _vectors(material: Material, layer: int) -> NDArray[np.float32]:
    from workers.training.data.activations import ActivationReader

    reader = ActivationReader(str(pair.base_model()), layer=layer)
    each = zip(material.chats, material.places, strict=True)
    return np.concatenate([reader.read([chat], [places])[0].vectors for chat, places in each])


def _read(
    folder: Path, material: Material, rows: NDArray[np.float32]
) -> tuple[list[Reading], DecoderIdentity]:
    from workers.nla.engine.nla_decoder import NlaDecoder

    each = list(zip(material.chats, material.places, material.prompts, strict=True))
    tokens = [chat[place] for chat, places, _ in each for place in places]
    phases = ["prefill" if place < length else "decode" for _, places, length in each for place in places]
    decoder = NlaDecoder.open(folder, EngineSettings(candidates=calibrated_candidates(folder)))
    try:
        readings: list[Reading] = []
        for first in range(0, len(rows), _CHUNK):
            pair.log(f"reading {first} of {len(rows)}")
            part = slice(first, first + _CHUNK)
            readings += decoder.read(rows[part], GivenFacts(tokens[part], phases[part]))
        return readings, decoder.identity
    finally:
        decoder.close()


def _judge(
    canary: Canary, read: Sequence[tuple[int, Reading, Sequence[Match]]], rules: Mapping[str, FlagRule]
) -> Run:
    now = dt.datetime.now(dt.UTC)
    sightings = [
        Sighting(match.concept, place, now)
        for place, reading, matches in read
        if reading.verified
        for match in matches
    ]
    evidence = Evidence(sightings, [place for place, _, _ in read], len(read))
    flag = {one.concept: one for one in decide(rules, evidence)}.get(canary.concept)
    return Run(canary, flag is not None and flag.calibrated is not None, flag is not None)


def main(argv: Sequence[str]) -> int:
    """Run and report; return 0, or 2 on invalid input."""
    parser = argparse.ArgumentParser(prog="bench.canaries", description=__doc__)
    parser.add_argument("--decoder-dir", type=Path, help="default: the demo's")
    parser.add_argument("--repeats", type=int, default=3, help="of each prompt")
    options = parser.parse_args(argv)
    prepare_environment()
    try:
        runs = measure(options.decoder_dir or pair.demo_decoder(), options.repeats)
    except (DecoderError, ValueError) as error:
        sys.stderr.write(f"bench-canaries: {error}\n")
        return 2
    rows = figures(runs)
    print("| concept | recall | of leads | false flags |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join([row.concept, *(_shown(one) for one in row[1:])]) + " |")
    print(json.dumps({"bench": "canaries", "rows": [row._asdict() for row in rows]}))
    return 0


def _shown(one: Rate) -> str:
    return f"{one.found} of {one.n} [{one.low:.2f}, {one.high:.2f}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
