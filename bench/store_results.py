"""What parts of bench-store have measured, kept beside the store, so that the last one prints it all."""

import datetime as dt
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FILE: Final = "results.json"
Measured = dict[str, Any]
"""Figures of one part, by the part's name."""


def load(folder: Path) -> Measured:
    """Return what was measured so far."""
    path = folder / _FILE
    found: Measured = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def keep(folder: Path, part: str, figures: Mapping[str, Any]) -> Measured:
    """Keep the part's figures instead of earlier ones, with when and under which load; return all."""
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    measured = load(folder)
    measured[part] = {"at": at, "load_average": round(os.getloadavg()[0], 1), **figures}
    draft = folder / f"{_FILE}.new"
    draft.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    draft.replace(folder / _FILE)
    return measured
