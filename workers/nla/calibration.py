"""A decoder's calibration as files: baseline, means, thresholds and null figures.

`calibration.json` (figures) and `calibration.safetensors` (arrays) stand beside the pair. The pair's digest
binds the figures to the pair, and a checksum binds the arrays to the figures; a mismatch is refused.
`anomaly.safetensors` is the detector's reference. It depends on the vectors but on no pair, and the sidecar
loads the same file.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from subtext_sidecar.anomaly.reference import AnomalyError, load_reference
from subtext_sidecar.anomaly.score import Reference
from workers.nla import fidelity
from workers.nla.decoder import PositionClass
from workers.nla.errors import CalibrationError
from workers.nla.positions import POSITION_CLASSES
from workers.nla.token_means import TokenMeans

FORMAT = 2
FIGURES, ARRAYS = "calibration.json", "calibration.safetensors"
ANOMALY = "anomaly.safetensors"
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The content of `calibration.json`."""

    decoder_digest: str
    """Digest of the pair's files; see `workers.nla.checkpoint.digest`."""
    model: str
    layer: int
    d_model: int
    vectors: int
    """Number of calibration vectors, all of which determine baseline and mean."""
    fve_baseline: float
    """Mean-predictor error on unit vectors, 1 - |mean|^2."""
    n: int
    """Number of decoded vectors, the basis of every figure about readings."""
    candidates: int
    """Candidates per vector; the thresholds hold only for the best of this many."""
    verified_above: dict[PositionClass, float]
    """Threshold by position class, for FVE beyond the token, or for FVE when the calibration vectors
    have no tokens."""
    shuffled_fve_p95: float
    """The largest of `verified_above`."""
    typical_spread_p1: float | None
    """Smallest squared distance from the mean direction for a verified vector; None when no limit is
    needed, because readings of the mean are not verified anyway."""
    typical_spread_p99: float | None
    """Largest squared distance; None when readings of random directions are not verified anyway."""
    measured: dict[str, Any]
    """Estimates with 95% intervals: {name: {value, ci95, n}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One decoder's calibration on benign traffic of one model and layer."""

    figures: Figures
    mean: NDArray[np.float32]
    """Mean direction of the calibration vectors, (d_model,); its length is below 1."""
    real_fve: NDArray[np.float32]
    """FVE of every reading, (n,)."""
    shuffled_fve: NDArray[np.float32]
    """FVE between every vector and the rebuilt reading of another document's vector, (n,)."""
    random_fve: NDArray[np.float32]
    """FVE of the readings of random directions, one per direction."""
    token_means: TokenMeans | None = None
    """Prediction from the read token alone; None when the calibration vectors have no tokens."""

    def is_typical(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which rows lie within the limits on the distance from the mean direction, (n,)."""
        figures = self.figures
        return is_typical(
            vectors, self.mean, low=figures.typical_spread_p1, high=figures.typical_spread_p99
        )

    def quantile_of(self, fve: float) -> float:
        """Return the share of calibration readings with a lower FVE, 0 to 1."""
        return float(np.mean(self.real_fve < fve))


def is_typical(
    vectors: NDArray[np.float32],
    mean: NDArray[np.float32] | NDArray[np.float64],
    *,
    low: float | None,
    high: float | None,
) -> NDArray[np.bool_]:
    """Return which rows have a squared distance from the mean direction within [low, high], (n,)."""
    spread = fidelity.spread(vectors, mean)
    return np.asarray(
        (spread >= (0.0 if low is None else low)) & (spread <= (np.inf if high is None else high)), bool
    )


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write both files, the figures last, because they hold the checksum of the arrays."""
    from safetensors.numpy import save

    arrays = {name: getattr(calibration, name) for name in _SHAPES}
    arrays |= calibration.token_means._asdict() if calibration.token_means else {}
    content = save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    figures = {"format": FORMAT, "arrays_sha256": hashlib.sha256(content).hexdigest()}
    figures |= asdict(calibration.figures)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / ARRAYS, content)
    _replace(folder / FIGURES, (json.dumps(figures, indent=2, ensure_ascii=False) + "\n").encode())


def load_calibration(folder: Path, *, decoder_digest: str) -> Calibration | None:
    """Read and validate a decoder's calibration; None when the folder has none.

    Raises CalibrationError, naming file and field, when the files are broken or of another decoder.
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
    return Calibration(
        figures=figures,
        token_means=_take_token_means(folder / ARRAYS, arrays, figures.d_model),
        **{name: arrays[name] for name in _SHAPES},
    )


def load_anomaly(folder: Path) -> Reference | None:
    """Return the anomaly reference in a decoder's folder, or None; raises CalibrationError."""
    if not (folder / ANOMALY).exists():
        return None
    try:
        return load_reference(folder / ANOMALY)
    except AnomalyError as error:
        raise CalibrationError(str(error)) from None


_SHAPES = {"mean": "d_model", "real_fve": "n", "shuffled_fve": "n", "random_fve": None}
"""Required arrays, each with the figure that equals its length."""


def _load_figures(path: Path) -> tuple[Figures, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, checksum = content.pop("format"), content.pop("arrays_sha256")
        # The format comes first, because other formats have other fields.
        _check_format(path, version)
        figures = TypeAdapter(Figures).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"])
        raise CalibrationError(f"{path}: {field_name}: {first['msg'].lower()}; calibrate again") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path}: not a calibration ({error!r}); calibrate again") from error
    if not (figures.n > 0 and 0 < figures.fve_baseline <= 1 and figures.shuffled_fve_p95 <= 1):
        raise CalibrationError(
            f"{path}: n, fve_baseline, shuffled_fve_p95: out of range ({figures.n}, {figures.fve_baseline},"
            f" {figures.shuffled_fve_p95}); calibrate again"
        )
    if set(figures.verified_above) != set(POSITION_CLASSES) or not all(
        0 <= threshold <= 1 for threshold in figures.verified_above.values()
    ):
        raise CalibrationError(
            f"{path}: verified_above: must be 0 to 1 for each of {', '.join(POSITION_CLASSES)}, is"
            f" {figures.verified_above}; calibrate again"
        )
    return figures, checksum


def _check_format(path: Path, version: object) -> None:
    if version != FORMAT:
        raise CalibrationError(
            f"{path}: format: is {version!r}, this release reads {FORMAT}; calibrate again"
        )


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


def _take_token_means(path: Path, arrays: dict[str, Array], d_model: int) -> TokenMeans | None:
    columns = [arrays.get(name) for name in TokenMeans._fields]
    if all(array is None for array in columns):
        return None
    m = len(arrays.get("token_ids", ()))
    shapes = ((m,), (m,), (m, d_model), (d_model + 1, d_model))
    for name, array, shape in zip(TokenMeans._fields, columns, shapes, strict=True):
        if array is None or array.shape != shape or not m or not np.isfinite(array).all():
            raise CalibrationError(f"{path}: {name}: must be {shape} finite numbers; calibrate again")
    return TokenMeans(*(arrays[name] for name in TokenMeans._fields))


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
