"""Merge shipped adapters into the full checkpoints of a decoder directory, once.

Shipped:    av/ and ar/ with PEFT adapters and `nla_meta.yaml`, ar/head.safetensors, calibration, card, and
            optionally av/projector.safetensors and av/labels.*
Assembled:  av/ and ar/ as official checkpoints (ar/ truncated, with value_head.safetensors), the
            same calibration and card, and `assembled.json` with the digest of the shipped pair
"""

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from workers.nla.calibration import ANOMALY, ARRAYS, FIGURES
from workers.nla.checkpoint.digest import digest_files, digest_pair
from workers.nla.checkpoint.head import load_head
from workers.nla.checkpoint.meta import FILE, Meta, Role, load_meta
from workers.nla.checkpoint.pair import HEADS, find_head, load_pair, load_shape
from workers.nla.checkpoint.text_model import first_blocks
from workers.nla.errors import MetaError

_RECORD = "assembled.json"
_EXTRAS = (FIGURES, ARRAYS, ANOMALY, "card.json", "README.md")
_TOKENIZER = ("tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja")
_log = structlog.get_logger(__name__)


def assemble(shipped: Path, base_model: Path, target: Path) -> Path:
    """Merge the shipped pair into `base_model` under `target` and return `target`.

    1. A target assembled from the same shipped weights is kept.
    2. Otherwise both halves are merged in float32 in a temporary folder beside the target, checked, and
       moved into place with one rename: after a kill the target is either the old decoder or the new one.
    3. Calibration and card are copied again when the shipped ones have changed.

    Raises MetaError when the pair is broken or belongs to another base model.
    """
    metas: dict[Role, Meta] = {"av": load_meta(shipped / "av", "av"), "ar": load_meta(shipped / "ar", "ar")}
    _check_base(metas, base_model)
    digest = digest_pair(shipped)
    if _recorded(target).get("digest") == digest:
        _refresh_extras(shipped, target)
        _log.info("decoder_reused", target=str(target), digest=digest)
        return target
    _log.info("decoder_assembling", shipped=str(shipped), base_model=str(base_model), target=str(target))
    start = time.monotonic()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _build(shipped, base_model, unfinished, metas)
        _write_record(unfinished, digest, shipped)
        _move(unfinished, target, digest)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _log.info(
        "decoder_assembled", target=str(target), digest=digest, seconds=round(time.monotonic() - start, 1)
    )
    return target


def pair_digest(folder: Path) -> str:
    """Return the digest that identifies a decoder directory's weights.

    For an assembled pair the digest is that of the shipped files, because merged weights may differ between
    machines.
    """
    recorded = _recorded(folder).get("digest")
    return recorded if isinstance(recorded, str) else digest_pair(folder)


def _check_base(metas: dict[Role, Meta], base_model: Path) -> None:
    shape = load_shape(base_model)
    for role, meta in metas.items():
        if meta.d_model != shape.d_model:
            raise MetaError(
                f"{role}/{FILE}: d_model is {meta.d_model}, {base_model} has {shape.d_model};"
                f" this decoder belongs to {meta.base_checkpoint!r}"
            )
        if meta.layer is None or meta.layer >= shape.num_layers:
            raise MetaError(
                f"{role}/{FILE}: extraction.layer_index: {meta.layer} does not exist in {base_model}, which"
                f" has blocks 0..{shape.num_layers - 1}; this decoder belongs to {meta.base_checkpoint!r}"
            )


def _build(shipped: Path, base_model: Path, target: Path, metas: dict[Role, Meta]) -> None:
    import safetensors.torch
    import transformers

    head = load_head(find_head(shipped / "ar"), metas["ar"].d_model)
    _merge(shipped / "av", base_model, target / "av", transformers.AutoModelForCausalLM)
    _merge(
        shipped / "ar",
        base_model,
        target / "ar",
        transformers.AutoModel,
        **first_blocks(base_model, (metas["ar"].layer or 0) + 1),
    )
    safetensors.torch.save_file({"weight": head}, target / "ar" / HEADS[0])
    for half in ("av", "ar"):
        _copy(_matching(base_model, _TOKENIZER), target / half)
        _copy(_matching(shipped / half, (FILE, *_TOKENIZER)), target / half)
    _copy((shipped / "av" / name for name in metas["av"].extra_files), target / "av")
    _copy(_matching(shipped, _EXTRAS), target)
    load_pair(target / "av", target / "ar")


def _merge(adapter: Path, base_model: Path, target: Path, loader: Any, **overrides: Any) -> None:
    """Add the adapter's deltas to the base weights and save the model in float32."""
    import peft
    import torch

    base: Any = loader.from_pretrained(base_model, dtype=torch.float32, local_files_only=True, **overrides)
    try:
        merged = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise MetaError(
            f"{adapter}: the adapters do not fit {base_model} ({error}); use their own base model"
        ) from error
    merged.save_pretrained(target)


def _write_record(folder: Path, digest: str, shipped: Path) -> None:
    record = {"digest": digest, "shipped": shipped.name, "extras": _digest_extras(shipped)}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _refresh_extras(shipped: Path, target: Path) -> None:
    """Copy a newer shipped calibration, but keep one that was made in the target."""
    if _recorded(target).get("extras") == _digest_extras(shipped):
        return
    _copy(_matching(shipped, _EXTRAS), target)
    _write_record(target, digest_pair(shipped), shipped)


def _digest_extras(shipped: Path) -> str:
    return digest_files(shipped, _matching(shipped, _EXTRAS))


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / _RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _move(unfinished: Path, target: Path, digest: str) -> None:
    """Move the finished decoder into place; of two concurrent processes the first one wins."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        unfinished.rename(target)
    except OSError:
        if _recorded(target).get("digest") != digest:
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]


def _copy(files: Iterable[Path], target: Path) -> None:
    for file in files:
        try:
            shutil.copyfile(file, target / file.name)
        except FileNotFoundError:
            raise MetaError(f"{file}: missing; it ships with the pair, copy the pair again") from None
