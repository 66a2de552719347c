"""Make what the demo keeps between runs: ``python -m deploy.local.prepare model|decoder ...``.

Both need torch and gigabytes for a moment, so they run in a process of their own.
"""

import hashlib
import sys
from pathlib import Path

from deploy.local.model import ensure_model


def decoder_target(shipped: Path, decoders_dir: Path) -> Path:
    """Return where this very version of the shipped decoder is assembled.

    The name carries a digest of the shipped files, so that a new version is never mistaken for an
    old one. Raises FileNotFoundError when there is no shipped decoder.
    """
    if not (shipped / "av").is_dir():
        raise FileNotFoundError(f"no decoder in {shipped}; is this checkout complete?")
    files = sorted(path for path in shipped.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(shipped)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return decoders_dir / f"{shipped.name}-{digest.hexdigest()[:12]}"


def assemble_decoder(shipped: Path, base_model: Path, target: Path) -> None:
    """Merge the shipped adapters into the model, once."""
    from workers.nla.checkpoint.assemble import assemble

    assemble(shipped, base_model, target)


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    if what == "model":
        ensure_model(Path(paths[0]))
    else:
        assemble_decoder(*(Path(path) for path in paths))
