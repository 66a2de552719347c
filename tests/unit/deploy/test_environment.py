"""The environment is read by settings and command lines alone; the rest gets what it needs as arguments."""

import ast
from pathlib import Path

from tests.support import ROOT

FOLDERS = ("sidecar/subtext_sidecar", "workers", "service", "deploy", "migrations")
MAY_READ = {
    "deploy/demo/commands.py": "a command line",
    "deploy/demo/session.py": "whether make started it, for what it prints",
    "deploy/checks/console.py": "processes that it starts inherit it",
    "deploy/local/launch.py": "processes that it starts inherit it",
    "deploy/local/process.py": "processes that it starts inherit it",
    "migrations/env.py": "a command line: Alembic's",
    "sidecar/subtext_sidecar/commands.py": "a command line",
    "sidecar/subtext_sidecar/screen/command.py": "a command line",
    "workers/calibrate/concepts.py": "a command line",
    "workers/calibrate/measure.py": "a command line",
    "workers/nla/engine/verbalizer.py": "vLLM reads its variables when it is imported",
    "workers/training/bundle/__main__.py": "a command line",
    "workers/training/bundle/train.py": "a command line",
    "workers/training/cli.py": "a command line",
    "workers/training/data/chats.py": "vLLM reads its variables when it is imported",
}


def reads_environment(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv", "putenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_only_settings_and_command_lines_read_the_environment() -> None:
    reading = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "settings.py" and reads_environment(path)
    }

    assert reading == set(MAY_READ)
