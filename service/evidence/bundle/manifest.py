"""The manifest: what was asked for, and SHA-256, length and rows of each member it speaks for. Pure."""

from collections.abc import Mapping
from typing import Any

from service.evidence.bundle.archive import Written, written
from service.evidence.bundle.layout import FORMAT, VERSION, Query
from service.evidence.entry import moment


def compose(query: Query, log: str, files: Mapping[str, Written], facts: Mapping[str, Any]) -> bytes:
    """Return the manifest of a bundle.

    ``log`` is the origin of its checkpoints; ``facts`` are what else there is to tell, and what else the
    query said, under `query`.
    """
    asked = {
        "kinds": sorted(query.kinds),
        "from": moment(query.start),
        "to": moment(query.end),
        "with_text": query.with_text,
    }
    return written(
        {
            **facts,
            "format": FORMAT,
            "version": VERSION,
            "log": log,
            "query": {**facts.get("query", {}), **asked},
            "files": {name: one._asdict() for name, one in files.items()},
        }
    )
