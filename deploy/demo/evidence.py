"""Verify the demo's evidence log as an auditor would, and say how to do it again."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local import launch

_DEADLINE_SECONDS: Final = 300.0
_FIGURES: Final = ("findings", "rows_verified", "entries", "checkpoints")


class EvidenceError(RuntimeError):
    """The store could not be verified."""


def verify(plan: launch.LaunchPlan) -> dict[str, int]:
    """Hold the store against the signed checkpoints; return the verifier's figures.

    Raises EvidenceError when it could not, or finds what does not fit, which the message names.
    """
    spec = launch.verify(plan)
    try:
        done = subprocess.run(
            spec.command,
            env=launch.full_env(spec),
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEADLINE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise EvidenceError(f"subtext verify was not done within {_DEADLINE_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise EvidenceError(f"subtext verify: {(done.stderr or done.stdout).strip()}")
    return figures(done.stdout)


def figures(written: str) -> dict[str, int]:
    """Return what `subtext verify` printed of all tenants, added up."""
    tenants = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    if not tenants:
        raise EvidenceError("subtext verify printed no figures")
    return {name: sum(one[name] for one in tenants) for name in _FIGURES}


def statement(found: Mapping[str, int]) -> str:
    """State for a reader what was verified, and of how much."""
    return (
        f"The evidence log fits: {found['rows_verified']} rows are as they were stored, by"
        f" {found['entries']} entries under {found['checkpoints']} signed"
        " checkpoints. That they are true it does not tell."
    )


def instructions(plan: launch.LaunchPlan) -> str:
    """Return the command by which a visitor verifies the store while the demo runs."""
    spec = launch.verify(plan)
    command = " ".join(_shortest(part) for part in spec.command)
    url_file = _shortest(str(launch.url_file(plan.home)))
    return f'SUBTEXT_DATABASE_URL="$(cat {url_file})" {command}'


def _shortest(path: str) -> str:
    """Return an absolute path below the working directory as it is typed from there."""
    return path.removeprefix(f"{Path.cwd()}/")
