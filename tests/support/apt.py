"""Debian packages that must be installed, because unpacked elsewhere they do not run."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.held import held

_POLICY = Path("/usr/sbin/policy-rc.d")
_INSTALL = "apt-get install -y --no-install-recommends"


def installed_alertmanager(state_dir: Path) -> str:
    """Return the path of Alertmanager, which root installs from Debian when it is missing.

    Debian's reads its template from below /usr/share, wherever its program lies. Raises RuntimeError with
    the command to run where it cannot be installed.
    """
    with held(state_dir / "alertmanager-install"):
        if not _alertmanager():
            _install("prometheus-alertmanager")
            if Path("/run/systemd/system").is_dir():
                subprocess.run(["systemctl", "disable", "--now", "prometheus-alertmanager"], check=False)
        found = _alertmanager()
    return _there(found, "prometheus-alertmanager")


def installed_chromium(state_dir: Path) -> str:
    """Return the path of Chromium's headless shell, which root installs from Debian when it is missing.

    It is the same engine without windows and profiles, and takes half as much of a processor as the whole
    browser, which serves only where the shell cannot be had. Raises RuntimeError with the command
    to run where neither can be installed.
    """
    with held(state_dir / "chromium-install"):
        for package in ("chromium-headless-shell", "chromium"):
            if not shutil.which(package):
                _install(package)
            if found := shutil.which(package):
                return found
    return _there(None, "chromium-headless-shell")


def _there(found: str | None, package: str) -> str:
    if found is None:
        raise RuntimeError(
            f"these tests need {package}, and it could not be installed; run `{_INSTALL} {package}`"
        )
    return found


def _alertmanager() -> str | None:
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = [*_INSTALL.split(), package, "--option=DPkg::Lock::Timeout=120"]
    with _no_daemons():
        if subprocess.run(command, env=environment, check=False).returncode:
            subprocess.run(["apt-get", "update"], check=False)  # there may be no package lists yet
            subprocess.run(command, env=environment, check=False)


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Keep packages from starting what they install; a policy that is there already stays."""
    is_ours = not _POLICY.exists()
    if is_ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if is_ours:
            _POLICY.unlink()
