"""Train from a bundle: unpack, train, export, measure, and pack the pair into pieces.

Until the bundle's packages are on the path, only the standard library, numpy, safetensors and PyYAML may be
imported.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from workers.training.bundle import token_ids, weights
from workers.training.bundle.pieces import (
    MANIFEST,
    BundleError,
    join_pieces,
    read_manifest,
    write_pieces,
)

RESULT_BYTES = 15 << 20
"""Largest piece of the resulting pair."""
REPORT = "report.json"
_TRAININGS = ("ar", "av", "adaptation", "winners")
_FEWEST = 12
"""Smallest number of vectors for a measured figure."""


def train(
    bundle: Path, home: Path, out: Path, *, share: float, log: Callable[[str], None]
) -> dict[str, Any]:
    """Train the bundle's run in `home`, write the pair's pieces into `out`, and return the report.

    1. Verify and join the pieces.
    2. Place model, chats and labels where `subtext train` stores its own.
    3. Train; a second call resumes.
    4. Write the pair's pieces and a report.

    Raises BundleError. `share` below 1 trains on that share of the examples, as a rehearsal.
    """
    started = time.monotonic()
    parts = home / "bundle"
    unpack(bundle, parts)
    add_packages(parts / "packages", home / "packages")
    run_file = place(parts, home, share=share)
    unpacked = time.monotonic()
    log(f"unpacked in {unpacked - started:.0f} s")

    os.environ["SUBTEXT_HOME"] = str(home)
    from workers.training import cli

    if cli.train(["--config", str(run_file)]):
        raise BundleError("the training did not end well; its last lines say why")
    report = {
        "device": _device(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "transformers", "peft", "numpy")},
        "share": share,
        "seconds_unpacking": round(unpacked - started, 1),
        "seconds_training": round(time.monotonic() - unpacked, 1),
    }
    write_pieces(shipped(home), out, piece_bytes=RESULT_BYTES)
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def unpack(bundle: Path, parts: Path) -> None:
    """Unpack a bundle once; BundleError if `parts` already holds another bundle."""
    manifest, done = read_manifest(bundle), parts / MANIFEST
    if done.exists():
        if done.read_text() != manifest:
            raise BundleError(f"{parts.parent}: another bundle was trained here; name another --home")
        return
    join_pieces(bundle, parts)
    done.write_text(manifest)


def shipped(home: Path) -> Path:
    """Return the folder of the trained pair."""
    return home / "shipped"


def add_packages(wheels: Path, site: Path) -> None:
    """Make wheels importable, ahead of installed versions."""
    if not wheels.is_dir():
        return
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    if str(site) not in sys.path:
        sys.path.insert(0, str(site))
    importlib.invalidate_caches()


def place(parts: Path, home: Path, *, share: float) -> Path:
    """Place the unpacked parts where `subtext train` looks for them, and return the run file.

    Raises BundleError if `home` already holds a training with another share.
    """
    from safetensors.numpy import load_file

    settings = yaml.safe_load((parts / "run.yaml").read_text())
    model = home / settings["model"]
    run = home / "runs" / (settings.get("folder") or settings["name"])
    if not (model / weights.FILE).exists():
        unfinished = model.with_name(f"{model.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(parts / "model", unfinished, ignore=shutil.ignore_patterns(weights.FILE))
        weights.unpack_weights(parts / "model" / weights.FILE, unfinished / weights.FILE)
        unfinished.rename(model)
    run.mkdir(parents=True, exist_ok=True)
    shutil.copy(parts / "text_labels.safetensors", run)
    rows = token_ids.unpack_chats(load_file(parts / token_ids.FILE))
    (run / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("taxonomy.yaml", "chat_template.jinja"):
        if (parts / name).exists():
            shutil.copy(parts / name, home)
    run_file = home / "run.yaml"
    settings |= {"export": str(shipped(home).resolve())}
    text = yaml.safe_dump(scaled(settings, share), allow_unicode=True, sort_keys=False)
    if run_file.exists() and run_file.read_text() != text:
        raise BundleError(f"{home}: a training of another size was begun here; name another --home")
    run_file.write_text(text)
    return run_file


def scaled(settings: dict[str, Any], share: float) -> dict[str, Any]:
    """Return the settings with numbers of examples and measured vectors multiplied by `share`; pure."""
    if share == 1:
        return settings
    smaller = {name: dict(settings[name]) for name in _TRAININGS}
    for part in smaller.values():
        part["max_examples"] = max(1, round(part["max_examples"] * share))
    adaptation = smaller["adaptation"]
    adaptation["vectors"] = max(_FEWEST, round(adaptation["vectors"] * share))
    evaluation = dict(settings.get("evaluation", {}))
    measured = evaluation.get("round_trip_vectors", 400)
    evaluation["round_trip_vectors"] = max(_FEWEST, round(measured * share))
    return {**settings, **smaller, "evaluation": evaluation}


def _device() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "CPU"


def _version(name: str) -> str:
    return importlib.metadata.version(name)
