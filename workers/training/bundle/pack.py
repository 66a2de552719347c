"""Pack a training's inputs for a machine without network: token ids, labels and weights, but no texts."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from workers.training.bundle import token_ids, weights
from workers.training.bundle.pieces import BundleError, write_pieces
from workers.training.config import RunConfig, load_config
from workers.training.data import collect, labelling, lines, positions
from workers.training.data.collect import Chat
from workers.training.data.labels import Labels
from workers.training.steps import Run

RUN, TAXONOMY, TEMPLATE = "run.yaml", "taxonomy.yaml", "chat_template.jinja"
MODEL, PACKAGES = "model", "packages"
"""File and folder names in a bundle."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Inputs and output of packing."""

    config_file: Path
    home: Path
    """SUBTEXT_HOME with the run's chats and the model."""
    out: Path
    gguf: Path | None
    """The file that the model was converted from, if any."""
    packages: Path | None
    """Folder of wheels that the target machine lacks."""
    piece_bytes: int


def pack(packing: Packing, log: Callable[[str], None]) -> list[Path]:
    """Write the bundle's pieces and return their paths; BundleError if the run has no chats yet."""
    config = load_config(packing.config_file)
    run = Run(config=config, config_file=packing.config_file, home=packing.home, log=log)
    rows = lines.read_lines(run.folder / "chats.jsonl")
    if not rows:
        raise BundleError(
            f"{run.folder}: no chats; run `subtext train --config {packing.config_file} --until data` first"
        )
    with tempfile.TemporaryDirectory(prefix="subtext-bundle-") as staging:
        folder = Path(staging)
        log(f"packing {len(rows)} chats and their labels")
        _save(token_ids.pack_chats(rows), folder / token_ids.FILE)
        _write_labels(run, rows, folder / labelling.FILE)
        _write_run(config, packing.config_file.parent, folder)
        _copy_model(Path(run.model), folder / MODEL, packing.gguf, log)
        if packing.packages is not None:
            shutil.copytree(packing.packages, folder / PACKAGES, ignore=_all_but_wheels)
        return write_pieces(folder, packing.out, piece_bytes=packing.piece_bytes)


def _write_run(config: RunConfig, beside: Path, folder: Path) -> None:
    """Write the run file and the files that it names."""
    settings = config.model_dump(mode="json", exclude_defaults=True)
    # These paths exist only on this machine; the card stays in the pair's folder.
    settings.pop("card", None)
    settings.pop("beside", None)
    settings["targets"] = settings.get("targets", {}) | {"taxonomy": TAXONOMY}
    shutil.copy(beside / config.targets.taxonomy, folder / TAXONOMY)
    if config.chats.template is not None:
        settings["chats"]["template"] = TEMPLATE
        shutil.copy(beside / config.chats.template, folder / TEMPLATE)
    (folder / RUN).write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))


def _write_labels(run: Run, rows: Sequence[dict[str, object]], path: Path) -> None:
    chosen = collect.choose_chats(run.config, rows)
    known = run.labelling()
    labels = {
        split: (chats, _known_labels(run, split, chats) or known.label(split, chats))
        for split, chats in chosen.items()
    }
    held_out = sorted({chat.document for chat in chosen["held_out"]})
    labelling.store(path, labels, known.answers(held_out))


def _known_labels(run: Run, split: positions.Split, chats: Sequence[Chat]) -> Labels | None:
    """Return the labels of a split collected earlier; None if missing or for other positions."""
    from safetensors import safe_open

    path = run.folder / f"{split}.safetensors"
    if not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        stored = (file.get_tensor("documents"), file.get_tensor("positions"))
        if not all(np.array_equal(*pair) for pair in zip(stored, labelling.places(chats), strict=True)):
            return None
        return Labels(*(file.get_tensor(name) for name in Labels._fields))


def _copy_model(model: Path, target: Path, gguf: Path | None, log: Callable[[str], None]) -> None:
    target.mkdir()
    for path in model.iterdir():
        if path.is_file() and path.name != weights.FILE:
            shutil.copy(path, target)
    quantised = weights.pack_weights(model, target / weights.FILE, gguf)
    log(f"packed the weights, {quantised} of them as the GGUF file holds them")


def _all_but_wheels(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".whl")]


def _save(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)
