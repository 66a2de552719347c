"""A probe: a direction of the audited layer that tells a concept, in one versioned file, and its score.

Only a vector's direction counts, as for the anomaly detector. The file is safetensors, so that `subtext
screen fit --probe` takes it too: there the same direction chooses which rows go on to the decoder. A digest
of what the file holds names it, and belongs to the concept's definition.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly.reference import AnomalyError, read_tensors, save_tensors
from workers.nla import fidelity

FORMAT: Final = "subtext-probe-1"
_UNIT_TOLERANCE: Final = 1e-3
_REFIT: Final = "fit it again with `subtext concept fit`"


class ProbeError(ValueError):
    """A probe cannot be used or fitted; the message names the file or the field, and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays do not compare to one truth
class LinearProbe:
    """Scores unit vectors u by 1 / (1 + exp(-scale (u - mean) . direction)), a probability."""

    name: str
    model: str
    """The served name, as on the records."""
    layer: int
    """K: vectors are outputs of block K."""
    direction: NDArray[np.float32]
    """Unit vector, (d_model,)."""
    mean: NDArray[np.float32]
    """(d_model,); a unit vector that projects like it scores 0.5."""
    scale: float
    threshold: float
    """Score that the fit suggests: at its false-positive rate on held-out prompts, at request level."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What the fit stood on and measured, as JSON."""

    @property
    def d_model(self) -> int:
        """Width of a vector."""
        return len(self.direction)

    def score(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the score of every row of (n, d_model), (n,), above 0 and below 1.

        Raises ProbeError on another width.
        """
        if vectors.shape[1:] != (self.d_model,):
            raise ProbeError(
                f"vectors: have shape {vectors.shape}, probe {self.name} is for rows of {self.d_model}"
            )
        units = fidelity.to_unit(np.asarray(vectors, np.float32))
        return sigmoid(self.scale * ((units - self.mean) @ self.direction.astype(np.float64)))

    @property
    def projection(self) -> float:
        """The threshold as the screen compares it: on (u - mean) . direction."""
        return float(np.log(self.threshold / (1.0 - self.threshold)) / self.scale)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities above 0 and below 1, whatever the logits."""
    bounded = np.clip(logits, -30.0, 30.0)  # beyond, float64 rounds 1 - p to nothing
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), np.float64)


def save_probe(probe: LinearProbe, path: Path) -> str:
    """Write the file, replacing it at once, and return its digest; raises ProbeError."""
    metadata, tensors = _content(probe)
    try:
        save_tensors(tensors, path, metadata)
    except AnomalyError as error:
        raise ProbeError(str(error)) from error
    return digest(probe)


def digest(probe: LinearProbe) -> str:
    """Return the SHA-256 of the probe's metadata and float32 tensors, as for an anomaly reference."""
    metadata, tensors = _content(probe)
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.shape}\0".encode() + value.astype("<f4").tobytes())
    return total.hexdigest()


def _content(probe: LinearProbe) -> tuple[dict[str, str], dict[str, NDArray[np.float32]]]:
    metadata = {
        "format": FORMAT,
        "name": probe.name,
        "model": probe.model,
        "layer": str(probe.layer),
        "scale": repr(probe.scale),
        "threshold": repr(probe.threshold),
        "card": json.dumps(probe.card, sort_keys=True),
    }
    tensors = {
        "direction": probe.direction,
        "mean": probe.mean,
        # What the screen reads; the metadata has the threshold on the score.
        "threshold": np.array([probe.projection], np.float32),
    }
    return metadata, tensors


def load_probe(path: Path) -> LinearProbe:
    """Read and validate a probe; ProbeError names file, field and fix."""
    try:
        return _probe(*read_tensors(path))
    except AnomalyError as error:
        raise ProbeError(f"{error}; {_REFIT}") from error
    except ProbeError as error:
        raise ProbeError(f"{path}: {error}; {_REFIT}") from None


def _probe(metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> LinearProbe:
    if metadata.get("format") != FORMAT:
        raise ProbeError(f"format: is {metadata.get('format')!r}, this release reads {FORMAT!r}")
    direction = _tensor(tensors, "direction")
    mean = _tensor(tensors, "mean")
    if mean.shape != direction.shape:
        raise ProbeError(f"mean: has {len(mean)} values and direction {len(direction)}")
    if abs(float(np.linalg.norm(direction)) - 1.0) > _UNIT_TOLERANCE:
        raise ProbeError("direction: must have length 1")
    scale, threshold = _number(metadata, "scale"), _number(metadata, "threshold")
    if scale <= 0.0:
        raise ProbeError(f"scale: is {scale:g}, must be above 0")
    if not 0.0 < threshold < 1.0:
        raise ProbeError(f"threshold: is {threshold:g}, must be above 0 and below 1")
    layer = metadata.get("layer", "")
    if not layer.isdecimal():
        raise ProbeError(f"layer: is {layer!r}, must be a whole number")
    return LinearProbe(
        name=_text(metadata, "name"),
        model=_text(metadata, "model"),
        layer=int(layer),
        direction=direction,
        mean=mean,
        scale=scale,
        threshold=threshold,
        card=_card(metadata),
    )


def _tensor(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    value = tensors.get(name)
    if value is None or value.ndim != 1 or not len(value) or value.dtype != np.float32:
        raise ProbeError(f"{name}: must be float32 of one axis")
    if not np.isfinite(value).all():
        raise ProbeError(f"{name}: has values that are not finite")
    return value


def _text(metadata: Mapping[str, str], name: str) -> str:
    if not metadata.get(name):
        raise ProbeError(f"{name}: is missing")
    return metadata[name]


def _number(metadata: Mapping[str, str], name: str) -> float:
    try:
        value = float(metadata.get(name, ""))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ProbeError(f"{name}: is {metadata.get(name)!r}, must be a number")
    return value


def _card(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        return dict(json.loads(metadata.get("card", "{}")))
    except (ValueError, TypeError) as error:
        raise ProbeError(f"card: is no JSON object: {error}") from None


def check_fit(
    probes: Iterable[LinearProbe], *, models: Collection[str], layer: int, d_model: int | None
) -> None:
    """Raise ProbeError, naming probe, field and fix, unless every probe is for this model, layer and width.

    ``models`` holds the names of the decoder's model: the checkpoint's and the served one. ``d_model`` is
    None where it is not known.
    """
    names = " or ".join(sorted(set(models)))
    for probe in probes:
        for what, got, needed, is_right in (
            ("model", probe.model, names, probe.model in models),
            ("layer", probe.layer, layer, probe.layer == layer),
            ("d_model", probe.d_model, d_model, d_model is None or probe.d_model == d_model),
        ):
            if not is_right:
                raise ProbeError(
                    f"probe {probe.name!r}: {what}: it is of {got!r}, the decoder reads {needed!r}; fit one"
                    " of that with `subtext concept fit`, or take the matcher out of its concept"
                )
