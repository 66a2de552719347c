"""What Prometheus' own tool says of the rules that ship."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT
from tests.support.services import promtool

DEPLOY = ROOT / "deploy"
ALERT_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*_test.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_rule_tests_pass_in_promtool(state_dir: Path) -> None:
    for path in ALERT_TESTS:
        for name in load(path)["rule_files"]:
            assert (path.parent / name).is_file()
    tool = promtool(state_dir)
    subprocess.run([tool, "test", "rules", *map(str, ALERT_TESTS)], check=True)
    subprocess.run([tool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")], check=True)
