"""The Makefile explains itself, refuses another Python, and keeps stdout for the demo's last line."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support import ROOT


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Under `make test ARGS=...`, the outer make's own options and variables would reach this one.
    outer = ("MAKE", "MFLAGS", "ARGS", "ONCE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)


def test_help_lists_every_target_that_a_newcomer_needs() -> None:
    done = make(ROOT, "help")

    assert done.returncode == 0
    for target in ("demo", "test", "check", "setup", "setup-dev", "clean", "help"):
        assert f"  make {target} " in done.stdout


def test_another_python_is_refused_with_the_fix(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "sidecar").mkdir()
    for project in ("pyproject.toml", "sidecar/pyproject.toml"):
        shutil.copy(ROOT / project, tmp_path / project)
    other = tmp_path / "python3.9"
    other.write_text("#!/bin/sh\necho Python 3.9.1; exit 1\n")
    other.chmod(0o755)

    done = make(tmp_path, "setup", f"PYTHON={other}")

    assert done.returncode != 0
    assert "Subtext needs Python 3.11" in done.stderr
    assert "Python 3.9.1" in done.stderr
    assert "make PYTHON=/path/to/python3.11 setup" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_once_is_passed_on_and_nothing_follows_the_demo_on_stdout() -> None:
    recipe = make(ROOT, "--dry-run", "--assume-old=setup", "demo", "ONCE=1").stdout.splitlines()

    assert recipe[-1].strip() == ".venv/bin/subtext demo --once"
    makefile = (ROOT / "Makefile").read_text()
    assert "\t@$(BIN)/subtext demo" in makefile
