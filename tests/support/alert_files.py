"""The shipped files of Prometheus and Alertmanager, as fast as a test needs them.

Only times and addresses are changed:
- prometheus.yml: every second instead of every 15; each job's target is the test's own, and jobs without
  one are left out.
- rules: evaluated every second, and `for` takes a 60th of its time. Expressions stay as they are.
- alertmanager.yml: groups wait two seconds, and each `url_file` becomes the URL of the test's own receiver,
  because Debian's Alertmanager 0.25 knows no `url_file` (0.26 does).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

PROMETHEUS_DIR = ROOT / "deploy" / "prometheus"
ALERTMANAGER_FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPEED_UP = 60


def fast_routes(receiver_url: str) -> dict[str, Any]:
    """Return the shipped alertmanager.yml with its receivers at this URL."""
    config: dict[str, Any] = yaml.safe_load(ALERTMANAGER_FILE.read_text())
    config["route"] |= {"group_wait": "2s", "group_interval": "2s"}
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            del hook["url_file"]
            hook["url"] = f"{receiver_url}/{receiver['name']}"
    return config


def fast_rules(path: Path) -> dict[str, Any]:
    """Return a shipped rule file that is evaluated every second and waits a 60th of its time."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for group in document["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{_seconds(rule['for']) // _SPEED_UP}s"
    return document


def _seconds(duration: str) -> int:
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"(\d+)([smhd])", duration))


def write_prometheus(folder: Path, targets: Mapping[str, int], alertmanager_port: int) -> Path:
    """Write prometheus.yml and its rules; ``targets`` are ports of the loopback interface by job."""
    config = yaml.safe_load((PROMETHEUS_DIR / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"] = _at(alertmanager_port)
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [
        jobs[name] | {"static_configs": _at(port)} for name, port in targets.items()
    ]
    (folder / "rules").mkdir()
    for path in (PROMETHEUS_DIR / "rules").glob("*.yml"):
        (folder / "rules" / path.name).write_text(yaml.safe_dump(fast_rules(path)))
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(config))
    return written


def _at(port: int) -> list[dict[str, list[str]]]:
    return [{"targets": [f"127.0.0.1:{port}"]}]
