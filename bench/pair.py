"""The pair that a benchmark measures and the vectors that it reads, where its options name none."""

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
"""How the demo's decoder was trained."""


def state_dir() -> Path:
    """Return SUBTEXT_HOME, where the demo and the trainer keep what they made."""
    return Path(os.environ.get("SUBTEXT_HOME", ".subtext"))


def run_dir() -> Path:
    """Return the training run of the demo's decoder, whether it is there or not."""
    config = load_config(RUN_FILE)
    return state_dir() / "runs" / (config.folder or config.name)


def base_model() -> Path:
    """Return the audited model of the demo's decoder, converted at first use."""
    models = state_dir() / "models"
    models.mkdir(parents=True, exist_ok=True)
    return ensure_model(models, log=log)


def demo_decoder() -> Path:
    """Return the demo's decoder as the demo assembles it, assembled at first use."""
    target = decoder_target(launch.SHIPPED_DECODER, state_dir() / "decoders")
    target.parent.mkdir(parents=True, exist_ok=True)
    shipped, model = str(launch.SHIPPED_DECODER), str(base_model())
    # In a process of its own: it needs gigabytes for a moment, and logs to stdout.
    command = [sys.executable, "-m", "deploy.local.prepare", "decoder", shipped, model, str(target)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return target


def add_decoder_option(parser: argparse.ArgumentParser) -> None:
    """Add --decoder-dir; without it, `demo_decoder` is meant."""
    parser.add_argument(
        "--decoder-dir", type=Path, help="assembled decoder: av/, ar/ (default: the demo's, assembled)"
    )


def synthetic_vectors(checkpoint: Path, *, count: int, seed: int = 0) -> Vectors:
    """Draw vectors like those that a pair's AV was trained on, at random ordinary tokens.

    Around the projector's mean with the spread that it divides by; around 0 for a pair without one.
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
    """Read an option that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def log(line: str) -> None:
    """Tell progress: stdout is for results."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def frame(checkpoint: Path, meta: Meta) -> tuple[NDArray[np.float32], float]:
    """Return the mean and scale that a pair centres vectors with; 0 and 1 for one without a projector."""
    part = meta.projector
    if part is None:
        return np.zeros(meta.d_model, np.float32), 1.0
    projector = load_projector(
        checkpoint / part.file, d_model=meta.d_model, rows=part.rows, scale=part.scale, mean=part.mean
    )
    return projector.mean, projector.scale
