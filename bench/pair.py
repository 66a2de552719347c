"""Defaults for benchmarks: the demo's pair, its training run, and synthetic vectors."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.local import launch
from deploy.local.model import ensure_model
from deploy.local.prepare import decoder_target
from workers.calibrate.summary import Vectors
from workers.nla.checkpoint.meta import Meta, load_meta
from workers.nla.checkpoint.projector import load_projector
from workers.training.config import load_config

RUN_FILE = launch.SHIPPED_DECODER / "run-gpu.yaml"
"""Run file of the demo's decoder."""


def state_dir() -> Path:
    """Return SUBTEXT_HOME, the state directory of demo and trainer."""
    return Path(os.environ.get("SUBTEXT_HOME", ".subtext"))


def run_dir() -> Path:
    """Return the folder of the training run of the demo's decoder, which may not exist."""
    config = load_config(RUN_FILE)
    return state_dir() / "runs" / (config.folder or config.name)


def base_model() -> Path:
    """Return the audited model of the demo's decoder, converting it on first use."""
    models = state_dir() / "models"
    models.mkdir(parents=True, exist_ok=True)
    return ensure_model(models, log=log)


def demo_decoder() -> Path:
    """Return the demo's decoder, assembling it on first use."""
    target = decoder_target(launch.SHIPPED_DECODER, state_dir() / "decoders")
    target.parent.mkdir(parents=True, exist_ok=True)
    shipped, model = str(launch.SHIPPED_DECODER), str(base_model())
    # A separate process, because assembling needs gigabytes for a moment and logs to stdout.
    command = [sys.executable, "-m", "deploy.local.prepare", "decoder", shipped, model, str(target)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return target


def add_decoder_option(parser: argparse.ArgumentParser) -> None:
    """Add --decoder-dir; callers use `demo_decoder` when it is missing."""
    parser.add_argument(
        "--decoder-dir", type=Path, help="assembled decoder: av/, ar/ (default: the demo's, assembled)"
    )


def synthetic_vectors(checkpoint: Path, *, count: int, seed: int = 0) -> Vectors:
    """Return random vectors, distributed roughly like an AV's training vectors, at random ordinary tokens.

    Mean and standard deviation are the projector's; without a projector they are 0 and 1.
    """
    import transformers

    meta = load_meta(checkpoint, "av")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    special = np.array(tokenizer.all_special_ids, np.int64)
    ordinary = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), special)
    rng = np.random.default_rng(seed)
    mean, spread = frame(checkpoint, meta)
    rows = mean + spread * rng.standard_normal((count, meta.d_model))
    return Vectors(
        rows=np.asarray(rows, np.float32),
        documents=np.arange(count),
        tokens=rng.choice(ordinary, count),
        phases=np.asarray(np.arange(count) % 2, np.uint8),
    )


def positive(text: str) -> int:
    """Parse a positive integer option."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def log(line: str) -> None:
    """Write a progress line to stderr, since stdout is for results."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def frame(checkpoint: Path, meta: Meta) -> tuple[NDArray[np.float32], float]:
    """Return the projector's mean (d,) and scale, or 0 and 1 for a pair without a projector."""
    part = meta.projector
    if part is None:
        return np.zeros(meta.d_model, np.float32), 1.0
    projector = load_projector(
        checkpoint / part.file, d_model=meta.d_model, rows=part.rows, scale=part.scale, mean=part.mean
    )
    return projector.mean, projector.scale
