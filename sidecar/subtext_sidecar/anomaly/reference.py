"""The detector's reference as a safetensors file, validated completely on load. No pickle.

`subtext calibrate` or `subtext screen fit` writes the file once; the sidecar's screen and the worker's
judge load the same one. A digest of the content identifies it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from subtext_sidecar.anomaly.score import CLASSES, Floats, Probe, Reference, Template
from subtext_sidecar.contract.record import MAX_SCORES

FORMAT: Final = "subtext-anomaly-2"
MAX_PROBES: Final = MAX_SCORES - 2  # besides anomaly and anomaly_p_value
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")
_UNIT_TOLERANCE: Final = 1e-3
# Axes of each tensor: d is d_model, k the number of components, c that of classes, r and w are those of the
# held-out requests and of the rows of each. Scores lie in a tensor a class, of any length.
_SHAPES: Final = {
    "mean": "d",
    "components": "kd",
    "variances": "k",
    "location": "c",
    "scale": "c",
    "request_p_values": "rw",
}
_SCORES: Final = "calibration_scores"
_PROBE_SHAPES: Final = {"direction": "d", "mean": "d"}

Tensors = Mapping[str, npt.NDArray[Any]]


class AnomalyError(ValueError):
    """Unusable reference or fitting data; the message names the file, the field and the fix."""


def save_reference(reference: Reference, path: Path) -> None:
    """Write the reference, replacing the file atomically."""
    metadata, tensors = _content(reference)
    save_tensors(tensors, path, metadata)


def digest(reference: Reference) -> str:
    """Return the SHA-256 of the reference's metadata and float32 tensors."""
    metadata, tensors = _content(reference)
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.shape}\0".encode() + value.astype("<f4").tobytes())
    return total.hexdigest()


def described(reference: Reference) -> dict[str, Any]:
    """Return what tells the reference apart, without its tensors: as whoever measures by it reports it."""
    return {
        "digest": digest(reference),
        "model": reference.model,
        "layer": reference.layer,
        "d_model": reference.d_model,
        "calibration_n": reference.calibration_n,
        "requests": len(reference.request_p_values),
        "norm_limit": float(reference.norm_limit),
        "first_position": reference.first_position,
        "probes": {probe.name: float(probe.threshold) for probe in reference.probes},
    }


def _content(reference: Reference) -> tuple[dict[str, str], Tensors]:
    tensors = {name: getattr(reference, name) for name in _SHAPES}
    tensors |= {
        f"{_SCORES}.{name}": scores
        for name, scores in zip(CLASSES, reference.calibration_scores, strict=True)
    }
    thresholds = {}
    for probe in reference.probes:
        thresholds[probe.name] = probe.threshold
        tensors |= {f"probe.{probe.name}.{part}": getattr(probe, part) for part in _PROBE_SHAPES}
    metadata = {
        "format": FORMAT,
        "model": reference.model,
        "layer": str(reference.layer),
        "d_model": str(reference.d_model),
        "noise": repr(reference.noise),
        "first_position": str(reference.first_position),
        "template": json.dumps(reference.template._asdict()),
        "norm_limit": repr(reference.norm_limit),
        "probes": json.dumps(thresholds),
    }
    return metadata, {name: np.asarray(value, np.float32) for name, value in tensors.items()}


def save_tensors(tensors: Tensors, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, replacing an existing one atomically; raises AnomalyError."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise AnomalyError(f"{path} cannot be written: {error.strerror or error}") from error


def load_reference(path: Path) -> Reference:
    """Read and validate a reference; raises AnomalyError."""
    metadata, tensors = read_tensors(path)
    try:
        return _reference(metadata, tensors)
    except AnomalyError as error:
        raise AnomalyError(f"anomaly reference {path}: {error}; fit it again") from None


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Return a safetensors file's metadata and tensors, bfloat16 as float32; raises AnomalyError."""
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        content = path.read_bytes()
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        parts = deserialize(content)  # type: ignore[no-untyped-call]  # compiled, without types
    except OSError as error:
        raise AnomalyError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise AnomalyError(f"{path} is not a safetensors file: {error}") from error
    return metadata, {name: _array(part, f"{path}: {name}") for name, part in parts}


_NUMPY_TYPES: Final = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BF16": "<u2",
}


def _array(part: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    if part["dtype"] not in _NUMPY_TYPES:
        raise AnomalyError(f"{name} has dtype {part['dtype']}, known are {', '.join(_NUMPY_TYPES)}")
    flat = np.frombuffer(part["data"], _NUMPY_TYPES[part["dtype"]])
    if part["dtype"] == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(part["shape"])


def _reference(metadata: Mapping[str, str], tensors: Tensors) -> Reference:
    if metadata.get("format") != FORMAT:
        raise AnomalyError(f"format is {metadata.get('format')!r}, this release reads {FORMAT!r}")
    sizes = {"d": _integer(metadata, "d_model"), "c": len(CLASSES)}
    sizes["k"] = len(tensors.get("components", ()))
    sizes["r"], sizes["w"] = _table(tensors, "request_p_values")
    names = [f"{_SCORES}.{name}" for name in CLASSES]
    sizes |= {name: len(np.atleast_1d(tensors.get(name, ()))) for name in names}
    values = {name: _tensor(tensors, name, shape, sizes) for name, shape in _SHAPES.items()}
    reference = Reference(
        model=_text(metadata, "model"),
        layer=_integer(metadata, "layer"),
        noise=_number(_text(metadata, "noise"), "noise"),
        norm_limit=_number(_text(metadata, "norm_limit"), "norm_limit"),
        first_position=_integer(metadata, "first_position"),
        template=_template(_text(metadata, "template")),
        calibration_scores=tuple(_tensor(tensors, name, (name,), sizes) for name in names),
        probes=_probes(metadata, tensors, sizes),
        **values,
    )
    _check(reference)
    return reference


def _check(reference: Reference) -> None:
    for scores in reference.calibration_scores:
        if not len(scores) or (np.diff(scores) < 0).any():
            raise AnomalyError("calibration_scores must be ascending, and at least one in each class")
    if not ((reference.variances > 0).all() and (reference.scale > 0).all() and reference.noise > 0):
        raise AnomalyError("variances, scale and noise must be above 0")
    shares = reference.request_p_values
    if not ((shares >= 0).all() and (shares <= 1).all()):
        raise AnomalyError("request_p_values must be from 0 to 1")
    if not reference.norm_limit > 0:
        raise AnomalyError("norm_limit must be above 0")
    products = reference.components @ reference.components.T
    if not np.allclose(products, np.eye(len(products)), atol=_UNIT_TOLERANCE):
        raise AnomalyError("components must be orthonormal")


def _table(tensors: Tensors, name: str) -> tuple[int, int]:
    """Return the shape of a tensor with two axes; (0, 0) where it is none, which no check of it passes."""
    shape = np.shape(tensors.get(name, ()))
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)  # noqa: PLR2004  # rows and columns


def _template(text: str) -> Template:
    try:
        known = json.loads(text)
        parts = {name: tuple(known[name]) for name in Template._fields}
    except (ValueError, TypeError, KeyError) as error:
        raise AnomalyError(f"template is no JSON object with the ids of its tokens: {error}") from None
    if not all(type(token) is int and token >= 0 for ids in parts.values() for token in ids):
        raise AnomalyError("template: token ids must be whole numbers from 0 on")
    return Template(**parts)


def _probes(metadata: Mapping[str, str], tensors: Tensors, sizes: Mapping[str, int]) -> tuple[Probe, ...]:
    try:
        thresholds = dict(json.loads(_text(metadata, "probes")))
    except (ValueError, TypeError) as error:
        raise AnomalyError(f"probes is not a JSON object: {error}") from None
    if len(thresholds) > MAX_PROBES:
        raise AnomalyError(f"probes are {len(thresholds)}, at most {MAX_PROBES}")
    probes = []
    for name, threshold in thresholds.items():
        check_name(name)
        parts = {
            part: _tensor(tensors, f"probe.{name}.{part}", shape, sizes)
            for part, shape in _PROBE_SHAPES.items()
        }
        if abs(float(np.linalg.norm(parts["direction"])) - 1.0) > _UNIT_TOLERANCE:
            raise AnomalyError(f"probe.{name}.direction must have length 1")
        probes.append(Probe(name=name, threshold=_number(threshold, f"threshold of {name}"), **parts))
    return tuple(probes)


def check_name(name: str) -> None:
    """Raise AnomalyError unless the name is valid within a sampling reason and a metric label."""
    if not _NAME.fullmatch(name):
        raise AnomalyError(f"probe name {name!r} must be 1 to 40 of a-z, 0-9 and _, and not begin with _")


def _tensor(tensors: Tensors, name: str, axes: Sequence[str], sizes: Mapping[str, int]) -> Floats:
    if name not in tensors:
        raise AnomalyError(f"{name} is missing")
    value, shape = tensors[name], tuple(sizes[axis] for axis in axes)
    if value.dtype != np.float32:
        raise AnomalyError(f"{name} has dtype {value.dtype}, expected float32")
    if value.shape != shape:
        raise AnomalyError(f"{name} has shape {value.shape}, expected {shape}")
    if not np.isfinite(value).all():
        raise AnomalyError(f"{name} has values that are not finite")
    return value


def _text(metadata: Mapping[str, str], name: str) -> str:
    if not metadata.get(name):
        raise AnomalyError(f"{name} is missing")
    return metadata[name]


def _integer(metadata: Mapping[str, str], name: str) -> int:
    text = _text(metadata, name)
    if not text.isdecimal():
        raise AnomalyError(f"{name} is {text!r}, expected a whole number")
    return int(text)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (ValueError, TypeError):
        number = np.nan
    if not np.isfinite(number):
        raise AnomalyError(f"{name} is {value!r}, expected a number")
    return number
