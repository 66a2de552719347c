"""What Prometheus' own tool says of the rules that ship."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ALERT_TESTS = DEPLOY / "prometheus" / "tests" / "alerts_test.yml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_rule_tests_pass_in_promtool_where_it_is_installed() -> None:
    for name in load(ALERT_TESTS)["rule_files"]:
        assert (ALERT_TESTS.parent / name).is_file()
    promtool = shutil.which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "test", "rules", str(ALERT_TESTS)], check=True)
        subprocess.run(
            [promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")], check=True
        )
