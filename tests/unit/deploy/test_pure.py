"""A module whose docstring says that it is pure touches no file, socket, clock, process or accelerator."""

import ast
import re
from functools import cache

import pytest

from tests.support import ROOT

FOLDERS = {"subtext_sidecar": ROOT / "sidecar", "workers": ROOT, "service": ROOT}
IMPURE = {
    *("asyncio", "fastapi", "httpx", "msgpack", "multiprocessing", "os", "pathlib", "prometheus_client"),
    *("psutil", "psycopg", "redis", "requests", "shutil", "signal", "socket", "sqlalchemy", "structlog"),
    *("subprocess", "tempfile", "threading", "time", "torch", "transformers", "urllib", "vllm", "zmq"),
}
CALLS = {"open", "print", "input"}


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for name, folder in FOLDERS.items()
        for path in sorted((folder / name).rglob("*.py"))
        if path.name != "__init__.py"
    ]


@cache
def tree(module: str) -> ast.Module:
    folder = FOLDERS[module.partition(".")[0]]
    return ast.parse((folder / f"{module.replace('.', '/')}.py").read_text())


def says_pure(module: str) -> bool:
    about = ast.get_docstring(tree(module)) or ""
    return re.search(r"(?i)\bpure\b(?! but)", about) is not None


def imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


PURE = [module for module in modules() if says_pure(module)]


def test_many_modules_say_that_they_are_pure() -> None:
    assert len(PURE) >= 20


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(module)} & IMPURE == set()


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_opens_and_prints_nothing(module: str) -> None:
    called = {
        node.func.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & CALLS == set()


@pytest.mark.parametrize("module", PURE)
def test_what_a_pure_module_imports_of_ours_is_imported_without_acting(module: str) -> None:
    known = set(modules())
    for name in imports(module) & known:
        top = {
            alias.name.partition(".")[0]
            for node in tree(name).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert top & {"torch", "transformers", "vllm", "zmq", "redis", "sqlalchemy", "psycopg"} == set()
