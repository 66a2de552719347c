"""docs/hostile.md names tests, metrics and alerts that exist, and a hostile test for every row."""

import ast
import re

import pytest
import yaml

from subtext_sidecar.contract.counters import COUNTERS
from tests.support import ROOT

DOCUMENT = (ROOT / "docs/hostile.md").read_text()
HOSTILE = "tests/hostile"
SOURCES = [path for room in ("sidecar", "service", "workers") for path in (ROOT / room).rglob("*.py")]


def rows(title: str) -> list[list[str]]:
    table = DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


THROUGH_REAL_PARTS = [*rows("What clients send"), *rows("Parts that fail")]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(file: str, name: str) -> None:
    path = ROOT / file if "/" in file else ROOT / HOSTILE / file
    found = {
        node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    }

    assert name in found


def test_every_row_has_a_hostile_test_and_an_alert() -> None:
    alerts = {
        rule["alert"]
        for path in (ROOT / "deploy/prometheus").rglob("*.yml")
        if "groups" in (content := yaml.safe_load(path.read_text()))
        for group in content["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    assert len(THROUGH_REAL_PARTS) == 24
    for *_, tests, signal in THROUGH_REAL_PARTS:
        assert re.search(r"`\w+\.py::", tests)
        named = re.findall(r"\bSubtext\w+", signal)
        assert named
        assert set(named) <= alerts


def test_every_counter_exists() -> None:
    source = "".join(path.read_text() for path in SOURCES)
    named = {name for *_, signal in THROUGH_REAL_PARTS for name in re.findall(r"`(\w+)`", signal)}

    assert named
    for name in named - {str(counter) for counter in COUNTERS}:
        # A client library adds the end to the names of counters itself.
        assert f'"{name}"' in source or f'"{name.removesuffix("_total")}"' in source, name
