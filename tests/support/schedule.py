"""Which tests run in one process: those of a file, and those that share a started pipeline.

What a module starts is started once that way, and files are handed out in the order in which
pytest-randomly has put them.
"""

from xdist.scheduler import LoadScopeScheduling

# Folders whose tests share what one process may start only once: a pipeline, a GPU.
TOGETHER = ("tests/e2e/", "tests/gpu/")
# Begun last, one of these would keep a process busy alone for its whole length.
LONG = ("tests/e2e/", "tests/unit/bench/test_prevalence.py")


def group_of(node_id: str) -> str:
    """Return what is handed to a process as one piece."""
    file = node_id.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def place_of(node_id: str) -> int:
    """Return where a test's piece stands among those that begin first; all others come behind them."""
    group = group_of(node_id)
    return LONG.index(group) if group in LONG else len(LONG)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no type information
    """Hands out whole groups, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
