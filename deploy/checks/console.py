"""Hold the console's page against its source: lint, types, unit tests, and that `dist/` is what it builds.

`python -m deploy.checks.console` checks; `--write` builds `service/console/dist` anew. Node and npm are
those of this Python, from `requirements/dev.txt`; packages come from the lock file.
"""

import argparse
import fcntl
import filecmp
import gzip
import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent.parent
WEB = ROOT / "service" / "console" / "web"
DIST = ROOT / "service" / "console" / "dist"
SCRIPT_AT_MOST_BYTES: Final = 250_000
"""Compressed, of all pages together."""


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when everything fits, and 1, having said what does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="build dist/ instead of checking")
    is_write = parser.parse_args(arguments).write
    node_modules()
    run("npm", "run", "--silent", "types")
    if is_write:
        run("npm", "run", "--silent", "build", "--", "--outDir", str(DIST), "--logLevel", "warn")
        return 0
    run("npm", "run", "--silent", "check")
    run("npm", "test", "--silent")
    with tempfile.TemporaryDirectory() as built:
        run("npm", "run", "--silent", "build", "--", "--outDir", built, "--logLevel", "warn")
        differing = sorted(differences(Path(built), DIST))
    if differing:
        told = f"service/console/dist is not what the source builds ({', '.join(differing)}): make console"
        sys.stderr.write(f"{told}\n")
    return 1 if differing else 0


def differences(built: Path, kept: Path) -> set[str]:
    """Return the files, as paths below both folders, that only one of them has or that differ."""
    files = {
        folder: {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (built, kept)
    }
    common = files[built] & files[kept]
    _, mismatch, errors = filecmp.cmpfiles(built, kept, sorted(common), shallow=False)
    return (files[built] ^ files[kept]) | {*mismatch, *errors}


def script_bytes(dist: Path) -> int:
    """Return how large the scripts of a build are, compressed as the service does."""
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in dist.rglob("*.js"))


def node_modules() -> Path:
    """Return the folder of the page's packages, installed anew where the lock file is another."""
    folder = WEB / "node_modules"
    wanted = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    installed = folder / ".installed"
    with _alone():
        if not installed.is_file() or installed.read_text() != wanted:
            run("npm", "ci", "--silent")
            installed.write_text(wanted)
    return folder


def run(*command: str) -> None:
    """Run a command in the page's folder; raises CalledProcessError when it fails."""
    subprocess.run(command, cwd=WEB, env=with_node(), check=True)


def with_node() -> dict[str, str]:
    """Return the environment in which `node` and `npm` are those of this Python."""
    return os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def _alone() -> Iterator[None]:
    # Several test processes may come at once.
    with (WEB / ".packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed, as said above")
