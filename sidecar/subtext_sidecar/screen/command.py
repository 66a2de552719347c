"""``subtext screen``: collect benign activations, fit the detector's reference on them, show it."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.fit import Direction
from subtext_sidecar.anomaly.reference import (
    MAX_PROBES,
    AnomalyError,
    check_name,
    digest,
    load_reference,
    read_tensors,
    save_reference,
    save_tensors,
)
from subtext_sidecar.anomaly.score import CLASSES, NO_TEMPLATE, Places, Reference
from subtext_sidecar.screen.collect import Activations, collect

_GIVEN = ("positions", "tokens", "phases")
"""Tensors that tell the rows' position classes; `screen collect` and `subtext train` write them."""


def run(argv: Sequence[str]) -> int:
    """Run one subcommand: print one JSON line and return 0, or print an error and return 2."""
    arguments = _parse(argv)
    try:
        document = {"collect": _collect, "fit": _fit, "show": _show}[arguments.what](arguments)
    except AnomalyError as error:
        sys.stderr.write(f"subtext screen: {error}\n")
        return 2
    sys.stdout.write(f"{json.dumps(document)}\n")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="subtext screen", description=__doc__.partition(": ")[2])
    parts = parser.add_subparsers(dest="what", required=True)
    gather = parts.add_parser("collect", help="save activations of live traffic that is known to be benign")
    gather.add_argument(
        "--redis-url",
        default=os.environ.get("SUBTEXT_REDIS_URL"),
        required="SUBTEXT_REDIS_URL" not in os.environ,
        help="of the stream [SUBTEXT_REDIS_URL]",
    )
    gather.add_argument("--rows", type=int, default=4000, help="how many; `fit` tells how many it needs")
    gather.add_argument("--seconds", type=float, default=3600.0, help="wait no longer than that")
    fit = parts.add_parser("fit", help="fit a reference on activations of benign traffic")
    fit.add_argument(
        "--activations",
        type=Path,
        required=True,
        nargs="+",
        help="safetensors with `vectors` (n, d_model) and `documents` (n,), which request each came"
        " from; `captures` (n,) where a request has several; and for classes `positions`, `tokens` and"
        " `phases` (n,), 0 for prefill and 1 for decode",
    )
    for part in (gather, fit):
        part.add_argument("--model", required=True, help="served model name, as on the records")
        part.add_argument("--layer", type=int, required=True, help="K: the vectors are block K's output")
        part.add_argument("--output", type=Path, required=True, help="the file to write")
    fit.add_argument(
        "--p-value",
        type=_share,
        default=anomaly_fit.P_VALUE,
        help="smallest p-value to judge by; sets how many rows are needed, and the probes' thresholds",
    )
    fit.add_argument(
        "--template",
        type=Path,
        help="another reference for the same model, for the tokens of its chat template; without it, these"
        " are taken for words of prompt and answer",
    )
    fit.add_argument("--components", type=int, default=anomaly_fit.COMPONENTS, help="of the subspace")
    fit.add_argument(
        "--probe",
        type=_named_file,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="safetensors with `direction` (d_model,), and if wanted `mean` and `threshold`; repeatable",
    )
    show = parts.add_parser("show", help="check a reference and tell what it holds")
    show.add_argument("file", type=Path)
    return parser.parse_args(list(argv))


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _named_file(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _show(arguments: argparse.Namespace) -> dict[str, Any]:
    return _summary(load_reference(arguments.file))


def _collect(arguments: argparse.Namespace) -> dict[str, Any]:
    activations = collect(
        arguments.redis_url,
        model=arguments.model,
        layer=arguments.layer,
        rows=arguments.rows,
        seconds=arguments.seconds,
    )
    tensors: dict[str, npt.NDArray[Any]] = {
        "vectors": activations.vectors,
        "documents": activations.documents,
        "captures": activations.captures,
    }
    if (places := activations.places) is not None:
        tensors |= {"positions": places.positions, "tokens": places.token_ids}
        tensors["phases"] = (~places.is_prompt).astype(np.uint8)
    save_tensors(tensors, arguments.output)
    return {
        "rows": len(activations.vectors),
        "requests": len(np.unique(activations.documents)),
        "output": str(arguments.output),
    }


def _fit(arguments: argparse.Namespace) -> dict[str, Any]:
    directions = [_direction(name, path) for name, path in arguments.probe]
    if len({one.name for one in directions}) != len(directions) or len(directions) > MAX_PROBES:
        raise AnomalyError(f"--probe: names must differ, and be at most {MAX_PROBES}")
    activations = _activations(arguments.activations)
    fitted = anomaly_fit.fit(
        activations.vectors,
        activations.documents,
        captures=activations.captures,
        model=arguments.model,
        layer=arguments.layer,
        p_value=arguments.p_value,
        components=arguments.components,
        directions=directions,
        places=activations.places,
        template=NO_TEMPLATE if arguments.template is None else load_reference(arguments.template).template,
    )
    save_reference(fitted.reference, arguments.output)
    return {
        **_summary(load_reference(arguments.output)),
        "fit_rows": fitted.fit_rows,
        "massive_rows_left_out": fitted.massive_rows,
        "pooled_classes": fitted.pooled_classes,
        "output": str(arguments.output),
    }


def _summary(reference: Reference) -> dict[str, Any]:
    return {
        "model": reference.model,
        "layer": reference.layer,
        "digest": digest(reference),
        "d_model": reference.d_model,
        "components": len(reference.components),
        "calibration_rows": dict(zip(CLASSES, map(len, reference.calibration_scores), strict=True)),
        "calibration_requests": len(reference.request_p_values),
        "least_p_value": reference.least_p_value,
        "norm_limit": reference.norm_limit,
        "probes": {probe.name: probe.threshold for probe in reference.probes},
    }


def _activations(paths: Sequence[Path]) -> Activations:
    vectors: list[npt.NDArray[np.float32]] = []
    documents: list[npt.NDArray[np.int64]] = []
    captures: list[npt.NDArray[np.int64]] = []
    places: list[Places | None] = []
    first = first_capture = 0
    for path in paths:
        one = _read_activations(path)
        if vectors and one.vectors.shape[1] != vectors[0].shape[1]:
            raise AnomalyError(f"{path}: vectors have another width than those of {paths[0]}")
        # The files number their documents independently: renumber, so that requests stay distinct.
        names, numbers = np.unique(one.documents, return_inverse=True)
        vectors.append(one.vectors)
        places.append(one.places)
        documents.append(numbers + first)
        first += len(names)
        names, numbers = np.unique(one.captures, return_inverse=True)
        captures.append(numbers + first_capture)
        first_capture += len(names)
    known = [one for one in places if one is not None]
    joined = Places(*map(np.concatenate, zip(*known, strict=True))) if len(known) == len(places) else None
    return Activations(np.concatenate(vectors), np.concatenate(documents), np.concatenate(captures), joined)


def _read_activations(path: Path) -> Activations:
    _, tensors = read_tensors(path)
    for name, dimensions in (("vectors", 2), ("documents", 1)):
        if name not in tensors:
            raise AnomalyError(f"{path}: {name} is missing")
        if tensors[name].ndim != dimensions:
            raise AnomalyError(
                f"{path}: {name} has shape {tensors[name].shape}, expected {dimensions} axes"
            )
    tensors.setdefault("captures", tensors["documents"])
    given = [name for name in _GIVEN if name in tensors]
    columns = ("vectors", "documents", "captures", *given)
    if len({len(tensors[name]) for name in columns}) != 1:
        raise AnomalyError(f"{path}: {', '.join(columns)} differ in length")
    places = None
    if len(given) == len(_GIVEN):
        positions, tokens, phases = (tensors[name].astype(np.int64) for name in _GIVEN)
        places = Places(positions, tokens, phases == 0)
    documents, captures = (tensors[name].astype(np.int64) for name in ("documents", "captures"))
    return Activations(tensors["vectors"].astype(np.float32), documents, captures, places)


def _direction(name: str, path: Path) -> Direction:
    check_name(name)
    _, tensors = read_tensors(path)
    if "direction" not in tensors:
        raise AnomalyError(f"{path}: direction is missing")
    threshold = tensors.get("threshold")
    if threshold is not None and threshold.size != 1:
        raise AnomalyError(f"{path}: threshold must be one number")
    return Direction(
        name=name,
        direction=tensors["direction"],
        mean=tensors.get("mean"),
        threshold=None if threshold is None else float(threshold.reshape(-1)[0]),
    )
