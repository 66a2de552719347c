"""Hold docs/files.md against the tree: a line a file, in the order in which an activation meets them.

`python -m deploy.checks.files` compares, `--write` writes it anew. A file's line is its docstring's first.
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "files.md"
FOLDERS = (
    ("Inside the audited vLLM server", "sidecar/subtext_sidecar/plugin"),
    ("", "sidecar/subtext_sidecar/plugin/vllm"),
    ("", "sidecar/subtext_sidecar/plugin/vllm/stand_ins"),
    ("", "sidecar/subtext_sidecar/plugin/sampling"),
    ("", "sidecar/subtext_sidecar/plugin/transfer"),
    ("Between the server and the sidecar beside it", "sidecar/subtext_sidecar/local"),
    ("The sidecar's process", "sidecar/subtext_sidecar"),
    ("", "sidecar/subtext_sidecar/shipper"),
    ("", "sidecar/subtext_sidecar/screen"),
    ("What sidecar, workers and service agree on", "sidecar/subtext_sidecar/contract"),
    ("The worker's process, where the decoder runs", "workers"),
    ("", "workers/consumer"),
    ("", "workers/nla"),
    ("", "workers/nla/checkpoint"),
    ("", "workers/nla/engine"),
    ("", "workers/judge"),
    ("The store and the REST service", "service"),
    ("", "service/store"),
    ("", "service/coverage"),
    ("", "service/api"),
    ("", "service/api/routes"),
    ("", "service/api/schemas"),
    ("", "migrations"),
    ("", "migrations/versions"),
    ("Before anything runs: a pair and what is normal for it", "workers/training"),
    ("", "workers/training/data"),
    ("", "workers/training/fit"),
    ("", "workers/training/measure"),
    ("", "workers/training/bundle"),
    ("", "workers/calibrate"),
    ("Running all of it", "deploy"),
    ("", "deploy/local"),
    ("", "deploy/demo"),
    ("", "deploy/checks"),
    ("Measuring it", "bench"),
)
"""Headings with their folders; a folder without one belongs to the heading above."""


class UnlistedError(ValueError):
    """A folder of code that the document has no place for."""


def render() -> str:
    """Return the document; UnlistedError names a folder that is missing in `FOLDERS`."""
    known = {folder for _, folder in FOLDERS}
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in sorted({folder.partition("/")[0] for folder in known})
        for path in (ROOT / top).rglob("*.py")
    }
    if missing := sorted(found - known):
        raise UnlistedError(f"deploy/checks/files.py: FOLDERS: say where {', '.join(missing)} belong")
    return _HEAD + "".join(_section(heading, folder) for heading, folder in FOLDERS)


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    return lines[0].removesuffix(".") if lines else ""


def main(argv: list[str]) -> int:
    """Compare or write; returns 1 when the document is not what the tree says."""
    parser = argparse.ArgumentParser(prog="python -m deploy.checks.files", description=main.__doc__)
    parser.add_argument("--write", action="store_true")
    wanted = render()
    if parser.parse_args(argv).write:
        DOCUMENT.write_text(wanted)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text() == wanted:
        return 0
    sys.stderr.write("docs/files.md is out of date: python -m deploy.checks.files --write\n")
    return 1


def _section(heading: str, folder: str) -> str:
    top = f"\n## {heading}\n" if heading else ""
    package = ROOT / folder / "__init__.py"
    about = f": {first_line(package)}" if package.exists() and first_line(package) else ""
    rows = "".join(
        f"| `{path.name}` | {first_line(path)} |\n"
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name != "__init__.py"
    )
    return f"{top}\n**{folder}/**{about}\n" + (
        f"\n| file | what it does |\n|---|---|\n{rows}" if rows else ""
    )


_HEAD = """\
# Every file in a line

Generated from the files' own first lines by `python -m deploy.checks.files --write`; `make check` compares
it. The order is the one in which an activation meets them.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
