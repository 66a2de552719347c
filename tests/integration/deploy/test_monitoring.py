"""What the tools of Prometheus and Alertmanager say of the files that ship."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.alert_files import fast_routes
from tests.support.services import debian_program, promtool

DEPLOY = ROOT / "deploy"
ALERT_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*_test.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_rule_tests_pass_in_promtool(state_dir: Path) -> None:
    for path in ALERT_TESTS:
        for name in load(path)["rule_files"]:
            assert (path.parent / name).is_file()
    tool = promtool(state_dir)
    # It allocates far more than it keeps: looking for garbage seldom spares a quarter of its time.
    seldom = os.environ | {"GOGC": "400"}
    subprocess.run([tool, "test", "rules", *map(str, ALERT_TESTS)], check=True, env=seldom)
    subprocess.run([tool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")], check=True)


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """The shipped alertmanager.yml, as Debian's Alertmanager knows it."""
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(fast_routes("http://127.0.0.1:1")))
    return path


def test_alertmanager_accepts_its_file(routes: Path, state_dir: Path) -> None:
    amtool = debian_program(state_dir, "amtool", "prometheus-alertmanager")

    subprocess.run([amtool, "check-config", routes], check=True)


@pytest.mark.parametrize(
    ("severity", "receiver"), [("page", "pager"), ("ticket", "tickets"), ("none", "watchdog")]
)
def test_every_severity_goes_where_it_should(
    routes: Path, state_dir: Path, severity: str, receiver: str
) -> None:
    amtool = debian_program(state_dir, "amtool", "prometheus-alertmanager")
    command = [amtool, "config", "routes", "test", f"--config.file={routes}", f"severity={severity}"]

    routed = subprocess.run(command, check=True, capture_output=True, text=True)

    assert routed.stdout.split() == [receiver]
