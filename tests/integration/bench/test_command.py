"""What make makes of the options of a benchmark."""

import os
import subprocess

from tests.support import ROOT


def test_make_passes_options_on_and_nothing_follows_the_last_line() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "--assume-old=setup", "bench-capture", "ARGS=--rounds 1"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1].strip() == ".venv/bin/python -m bench.capture --rounds 1"
