"""Which revision of the audited model an engine loaded, as far as that is told without reading its weights.

Once, after vLLM has loaded the model. What cannot be told is null: an engine serves all the same.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".gguf")
_DESCRIBING: Final = ("config.json", "generation_config.json", "tokenizer_config.json")
_INDEX_SUFFIX: Final = ".index.json"
_MOST_FILES: Final = 4096
_MOST_BYTES: Final = 64 << 20  # of one file that is read


def describe_model(vllm_config: Any) -> dict[str, Any]:
    """Return name, revision, commit, number formats and a digest of the files of the engine's model.

    ``files`` is the SHA-256 over the names and sizes of the weight files and over what the configuration
    files and the weights' index hold. Weights that were changed in place without another size have the
    same. Null where the model is in no place that the engine's process can look at.
    """
    config = vllm_config.model_config
    name = _text(config, "model") or ""
    place = _place(name, _text(config, "revision"))
    return {
        # A path says how a host is laid out, and its last part which model it is.
        "model": Path(name).name if _is_local(name) else name,
        "revision": _text(config, "revision"),
        "commit": _text(getattr(config, "hf_config", None), "_commit_hash"),
        "tokenizer_revision": _text(config, "tokenizer_revision"),
        "dtype": _text(config, "dtype"),
        "quantization": _text(config, "quantization"),
        "files": None if place is None else files_digest(place),
    }


def files_digest(place: Path) -> str | None:
    """Return the digest of the model's files in a directory, or of its one file (GGUF).

    None where there are none, or they cannot be read.
    """
    total = hashlib.sha256()
    found = 0
    try:
        for path in sorted(place.iterdir())[:_MOST_FILES] if place.is_dir() else [place]:
            if path.suffix in _WEIGHTS:
                total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                found += 1
            elif path.name in _DESCRIBING or path.name.endswith(_INDEX_SUFFIX):
                with path.open("rb") as file:
                    content = file.read(_MOST_BYTES)
                total.update(f"{path.name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
                found += 1
    except OSError:
        return None
    return total.hexdigest() if found else None


def _place(name: str, revision: str | None) -> Path | None:
    """Return where the model's files lie: the path itself, or the snapshot in Hugging Face's cache."""
    if _is_local(name):
        return Path(name)
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except Exception:  # noqa: BLE001  # a name that is of no repository, such as a bucket's
        return None
    return Path(found).parent if isinstance(found, str) else None


def _is_local(name: str) -> bool:
    return name != "" and Path(name).exists()


def _text(config: Any, name: str) -> str | None:
    value = getattr(config, name, None)
    return None if value is None else str(value)
