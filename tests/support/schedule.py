"""Distribution of tests over processes: a file, or folders that share a pipeline, stay together.

Each module's services thus start once, and files keep pytest-randomly's order.
"""

from xdist.scheduler import LoadScopeScheduling

# Folders whose tests share a resource that only one process may use: a pipeline, a GPU.
TOGETHER = ("tests/e2e/", "tests/gpu/")
# These start first; started last, one of them would keep a single process busy at the end.
LONG = ("tests/e2e/", "tests/unit/bench/test_prevalence.py")


def group_of(node_id: str) -> str:
    """Return the group of a test, which runs in one process."""
    file = node_id.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def place_of(node_id: str) -> int:
    """Return the rank of a test's group: its index in ``LONG``, or the last rank."""
    group = group_of(node_id)
    return LONG.index(group) if group in LONG else len(LONG)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no type information
    """Distributes whole groups, in order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
