"""Speed of the decoder: the AV against Hugging Face and against plain token prompts, and the AR.

``make bench-decode`` needs an otherwise idle machine. One process loads one assembled pair, and every round
runs all arms in another order: the AV with one greedy reading per vector and with `--candidates`, Hugging
Face `generate` on the same prompts at three batch sizes, the AV's engine on token prompts with the same
input and output lengths, and the AR on the AV's texts. Ratios are taken within a round.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import pair
from bench.decode_report import ARMS, Prefill, Run, Setting, document, table
from workers.calibrate.summary import Vectors
from workers.nla.engine.verbalizer import EngineSettings, prepare_environment
from workers.nla.errors import DecoderError

_LEAST_ROUNDS: Final = 5


def main(argv: Sequence[str]) -> int:
    """Run and report; return 0 if every bar is passed, 1 if not, 2 if the pair is unusable."""
    options = _options(argv)
    # All arms share the process's threads, so vLLM must not bind them to cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    prepare_environment()
    try:
        results = _measure(options)
    except DecoderError as error:
        sys.stderr.write(f"bench-decode: {error}\n")
        return 2
    print(table(results))
    print(json.dumps(results))
    return 0 if results["ok"] else 1


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from bench.decode_stage import Stage

    folder = options.decoder_dir or pair.demo_decoder()
    vectors, origin = _vectors(options, folder)
    loads = portions(len(vectors.rows) - 1, rounds=options.rounds, size=options.vectors_per_round)
    settings = EngineSettings(candidates=options.candidates)
    # The last vector is reserved for warming the cache.
    stage = Stage(folder, settings, vectors.take(np.array([len(vectors.rows) - 1])))
    try:
        rounds: list[dict[str, Run]] = []
        prefills: list[Prefill] = []
        same: list[float] = []
        rng = np.random.default_rng(0)
        for number, rows in enumerate(loads):
            load = stage.prepare(vectors.take(rows))
            if not same:
                same.append(stage.same_answers(load))
            prefills += load.prefills
            arms = stage.runs(load, rng)
            done = {name: arms[name]() for name in turned(ARMS, number)}
            rounds.append(done)
            shown = ", ".join(f"{name} {done[name].readings / done[name].seconds:.1f}" for name in ARMS)
            pair.log(f"round {number + 1} of {len(loads)}, readings a second: {shown}")
        setting = Setting(
            decoder=stage.decoder.identity.name,
            vectors=origin,
            candidates=options.candidates,
            block=stage.block,
            threads=stage.threads,
            device=stage.device,
            same_answers=same[0],
        )
    finally:
        stage.close()
    return document(rounds, prefills, setting)


def portions(available: int, *, rounds: int, size: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the row numbers of every round, evenly spaced, repeating rows if there are too few."""
    total = rounds * size
    spread = np.linspace(0, available - 1, min(total, available)).round().astype(np.int64)
    rows = np.resize(np.random.default_rng(0).permutation(np.unique(spread)), total)
    return list(rows.reshape(rounds, size))


def turned(arms: Sequence[str], number: int) -> list[str]:
    """Return the arms in a round's random order, seeded by the round, so that drift affects all alike."""
    return [arms[index] for index in np.random.default_rng(number).permutation(len(arms))]


def _vectors(options: argparse.Namespace, folder: Path) -> tuple[Vectors, str]:
    from workers.calibrate.measure import load_vectors

    path = options.vectors or pair.run_dir() / "calibration_vectors.safetensors"
    if options.vectors or path.exists():
        return load_vectors(path), str(path)
    count = options.rounds * options.vectors_per_round + 1
    pair.log(f"no {path}: drawing {count} vectors around the projector's mean")
    return pair.synthetic_vectors(folder / "av", count=count), "synthetic"


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-decode", description=__doc__)
    pair.add_decoder_option(parser)
    parser.add_argument(
        "--vectors",
        type=Path,
        help="safetensors as `subtext calibrate` takes them (default: calibration_vectors.safetensors of"
        " the decoder's training run in SUBTEXT_HOME; else synthetic ones)",
    )
    parser.add_argument(
        "--rounds", type=pair.positive, default=_LEAST_ROUNDS, help="at least 5 for a claim"
    )
    parser.add_argument("--vectors-per-round", type=pair.positive, default=64)
    parser.add_argument(
        "--candidates", type=pair.positive, default=EngineSettings().candidates, help="readings of a vector"
    )
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
