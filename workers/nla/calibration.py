"""A decoder's frozen reference: what its readings are compared with.

Two files beside the pair: `calibration.json` (figures) and `calibration.safetensors` (arrays). Both
are bound to the pair by its digest and to each other by a checksum; what does not fit is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from workers.nla.errors import CalibrationError

FORMAT = 1
FIGURES, ARRAYS = "calibration.json", "calibration.safetensors"
_ANOMALY = "anomaly."
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The scalar part, as in `calibration.json`."""

    decoder_digest: str
    """Digest of the pair's files; see `workers.nla.digest`."""
    model: str
    layer: int
    d_model: int
    vectors: int
    """Calibration vectors; baseline, mean and anomaly reference stand on all of them."""
    fve_baseline: float
    """Mean-predictor error on unit vectors, 1 - |mean|^2."""
    n: int
    """Vectors that were read; every figure about readings stands on them."""
    shuffled_fve_p95: float
    """A reading is verified above this."""
    measured: dict[str, Any]
    """Estimates with 95% intervals: {name: {value, ci95, n}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One decoder's reference on benign traffic of one model and layer."""

    figures: Figures
    mean: NDArray[np.float32]
    """Mean direction of the calibration vectors, (d_model,); its length is below 1."""
    real_fve: NDArray[np.float32]
    """FVE of every reading, (n,)."""
    shuffled_fve: NDArray[np.float32]
    """FVE between every vector and the rebuilt explanation of another document's vector, (n,)."""
    random_fve: NDArray[np.float32]
    """FVE of readings of random directions, (m,)."""
    anomaly: Mapping[str, Array] = field(default_factory=dict)
    """Arrays of the anomaly reference, for `AnomalyReference.from_arrays`."""

    def quantile_of(self, fve: float) -> float:
        """Return the share of calibration readings with a lower FVE, 0 to 1."""
        return float(np.mean(self.real_fve < fve))


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write both files; the figures last, because they vouch for the arrays."""
    from safetensors.numpy import save

    arrays = {name: getattr(calibration, name) for name in _SHAPES}
    arrays |= {f"{_ANOMALY}{name}": value for name, value in calibration.anomaly.items()}
    content = save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    figures = {"format": FORMAT, "arrays_sha256": hashlib.sha256(content).hexdigest()}
    figures |= asdict(calibration.figures)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / ARRAYS, content)
    _replace(folder / FIGURES, (json.dumps(figures, indent=2, ensure_ascii=False) + "\n").encode())


def load_calibration(folder: Path, *, decoder_digest: str) -> Calibration | None:
    """Read and check a decoder's calibration; None when it has none.

    Raises CalibrationError naming the file and field when it is broken or of another decoder.
    """
    if not (folder / FIGURES).exists():
        return None
    figures, checksum = _load_figures(folder / FIGURES)
    if figures.decoder_digest != decoder_digest:
        raise CalibrationError(
            f"{folder / FIGURES}: decoder_digest: is {figures.decoder_digest[:12]}, this decoder is"
            f" {decoder_digest[:12]}; run `subtext calibrate` for this one"
        )
    arrays = _load_arrays(folder / ARRAYS, checksum)
    _check_arrays(folder / ARRAYS, arrays, figures)
    anomaly = {
        name.removeprefix(_ANOMALY): value for name, value in arrays.items() if name.startswith(_ANOMALY)
    }
    return Calibration(figures=figures, anomaly=anomaly, **{name: arrays[name] for name in _SHAPES})


_SHAPES = {"mean": "d_model", "real_fve": "n", "shuffled_fve": "n", "random_fve": None}
"""The arrays of every calibration, and the figure that tells their length."""


def _load_figures(path: Path) -> tuple[Figures, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, checksum = content.pop("format"), content.pop("arrays_sha256")
        figures = TypeAdapter(Figures).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"])
        raise CalibrationError(f"{path}: {field_name}: {first['msg'].lower()}; calibrate again") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path}: not a calibration ({error!r}); calibrate again") from error
    if version != FORMAT:
        raise CalibrationError(
            f"{path}: format: is {version!r}, this release reads {FORMAT}; calibrate again"
        )
    if not (figures.n > 0 and 0 < figures.fve_baseline <= 1 and figures.shuffled_fve_p95 <= 1):
        raise CalibrationError(
            f"{path}: n, fve_baseline, shuffled_fve_p95: out of range ({figures.n}, {figures.fve_baseline},"
            f" {figures.shuffled_fve_p95}); calibrate again"
        )
    return figures, checksum


def _load_arrays(path: Path, checksum: str) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            raise CalibrationError(f"{path}: does not belong to its {FIGURES}; copy both again")
        return dict(load(content))
    except FileNotFoundError:
        raise CalibrationError(f"{path}: missing beside its {FIGURES}; copy both again") from None
    except SafetensorError as error:
        raise CalibrationError(f"{path}: not a safetensors file ({error}); calibrate again") from error


def _check_arrays(path: Path, arrays: dict[str, Array], figures: Figures) -> None:
    for name, length in _SHAPES.items():
        array = arrays.get(name)
        if array is None or array.ndim != 1 or not np.isfinite(array).all():
            raise CalibrationError(f"{path}: {name}: must be a vector of finite numbers; calibrate again")
        if length is not None and len(array) != getattr(figures, length):
            raise CalibrationError(
                f"{path}: {name}: has {len(array)} entries, {length} is {getattr(figures, length)};"
                " calibrate again"
            )


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
