"""Distribution of tests over processes: a file, or folders that share a pipeline, stay together.

Each module's services thus start once, and files keep pytest-randomly's order.
"""

from collections.abc import Collection

from xdist.scheduler import LoadScopeScheduling

# Folders whose tests share a resource that only one process may use: a pipeline, a GPU.
TOGETHER = ("tests/e2e/", "tests/gpu/")
# These start first; started last, one of them would keep a single process busy at the end. After them come
# the files that start engines, and at the end the short ones, which fill both processes evenly.
LONG = ("tests/e2e/", "tests/unit/bench/test_prevalence.py")
SHORT = "tests/unit/"


def group_of(node_id: str) -> str:
    """Return the group of a test, which runs in one process."""
    file = node_id.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def place_of(node_id: str, with_engines: Collection[str]) -> int:
    """Return the rank of a test's group; ``with_engines`` are the groups whose tests start vLLM."""
    group = group_of(node_id)
    if group in LONG:
        return LONG.index(group)
    if group in with_engines:
        return len(LONG)
    return len(LONG) + 1 + group.startswith(SHORT)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no type information
    """Distributes whole groups, in order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
