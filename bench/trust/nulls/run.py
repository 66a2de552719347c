"""Make the nulls of benign held-out requests, read them, and judge them as the worker does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench.trust.nulls import flags, vectors
from bench.trust.nulls.vectors import BENIGN, MEAN, PLACEBO, RANDOM, SAME_TOKEN, SHUFFLED, STEERED
from bench.trust.reading import Incidents, read_all
from bench.trust.steering import Steerer, random_directions
from workers.judge.calibration import load, put_in_force
from workers.judge.concepts import load_concepts
from workers.judge.matching import ConceptMatcher
from workers.nla import fidelity
from workers.nla.decoder import Decoder
from workers.training.data.dataset import Samples
from workers.training.data.lines import read_lines

DOSE: Final = 1.0
"""Of random steering: as much is added as the state is long."""


class Inputs(NamedTuple):
    """The files that the nulls are made of."""

    run: Path
    """Training run with held_out.safetensors and chats.jsonl."""
    concepts: Path
    calibration: Path
    """The concept calibration that ships with the decoder."""


def measure(
    decoder: Decoder,
    steerer: Steerer,
    inputs: Inputs,
    *,
    requests: int,
    kept: Path,
    log: Callable[[str], None],
) -> tuple[list[flags.NullFigure], dict[str, Any]]:
    """Return the figure of every null and the setting; ValueError names what does not fit together."""
    rule = _rule(inputs, decoder)
    samples = Samples.load(inputs.run / "held_out.safetensors")
    rows = vectors.choose(samples, requests)
    if len(rows) < requests:
        raise ValueError(f"--requests: {inputs.run} holds out {len(rows)} chats of users, not {requests}")
    as_they_were = vectors.benign(samples, rows)
    conditions = {
        BENIGN: as_they_were,
        SHUFFLED: vectors.shuffled(as_they_were),
        SAME_TOKEN: vectors.same_token(as_they_were, samples, rows),
        RANDOM: vectors.random(as_they_were),
        MEAN: vectors.mean(as_they_were, fidelity.mean_direction(samples.vectors)),
        STEERED: _steered(steerer, inputs, samples, rows),
    }
    figures = []
    for name, incidents in conditions.items():
        reads = read_all(decoder, incidents, kept, f"null-{name.replace(' ', '-')}", log)
        found = flags.flags(rule, incidents, reads)
        figures.append(flags.figure(name, found, list(rule.in_force.rules), reads))
        if name == BENIGN:
            # The judge sees no text of a request, so one with another's explanations is flagged exactly
            # when the other is: the placebo's share is that of the benign requests.
            figures.append(figures[-1]._replace(null=PLACEBO))
    return figures, {
        "digest": decoder.identity.digest,
        "calibration": rule.in_force.digest,
        "requests": requests,
        "positions": int(rows.shape[1]),
        "dose": DOSE,
    }


def _rule(inputs: Inputs, decoder: Decoder) -> flags.Rule:
    from workers.judge.embedder import MiniLmEmbedder

    concepts = load_concepts(inputs.concepts)
    in_force = put_in_force(concepts, load(inputs.calibration), decoder.identity)
    if in_force.rejected:
        raise ValueError(
            f"{inputs.calibration}: is not of this decoder and these concepts"
            f" ({', '.join(sorted(in_force.rejected))}); run `subtext calibrate concepts`"
        )
    return flags.Rule(ConceptMatcher(concepts, MiniLmEmbedder(), in_force.thresholds), in_force)


def _steered(steerer: Steerer, inputs: Inputs, samples: Samples, rows: vectors.Rows) -> Incidents:
    """Return the same positions after steering each request along a random direction of its own."""
    chats = read_lines(inputs.run / "chats.jsonl")
    places = samples.positions[rows].tolist()
    tokens = [
        chats[document]["tokens"][: of_one[-1] + 1]
        for document, of_one in zip(samples.documents[rows[:, 0]].tolist(), places, strict=True)
    ]
    plain = steerer.read(tokens, places)
    length = float(np.mean([np.linalg.norm(one.steered, axis=1).mean() for one in plain]))
    added = random_directions(len(rows), samples.vectors.shape[1]) * np.float32(length * DOSE)
    read = [one.read for one in steerer.read(tokens, places, added)]
    return vectors.benign(samples, rows)._replace(vectors=np.stack(read))
