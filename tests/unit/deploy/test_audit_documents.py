"""What an auditor or a data protection officer is told to call, run and read is there."""

import ast
import json
import re
from pathlib import Path

import pytest

from service.cli import SUMMARIES
from service.store.schema import METADATA
from tests.support import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = ("auditing.md", "backup.md", "data-protection.md", "threat-model.md", "compliance.md")
OPERATIONS = {
    (method.upper(), re.sub(r"\{\w+\}", "{}", path))
    for path, methods in json.loads((DOCS / "openapi.json").read_text())["paths"].items()
    for method in methods
}
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "threat-model.md").read_text())))


def read(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[name for _, name in TESTS])
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())

    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_attacker_has_a_test_and_what_stays_open() -> None:
    attackers = read("threat-model.md").split("\n## ")[1:-1]

    assert len(attackers) == 8
    for one in attackers:
        assert "::test_" in one
        assert "**Open" in one


def test_every_table_of_the_store_is_told_of() -> None:
    section = read("data-protection.md").split("\n## By table\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]

    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(
        METADATA.tables
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_calls_are_there(document: str) -> None:
    text = read(document)
    commands = set(re.findall(r"(?:^|[`(|] ?|\n)subtext ([a-z]+)", text))
    calls = re.findall(r"\b(GET|POST) (/v1/[\w/{}-]*)", text)

    assert commands <= set(SUMMARIES)
    assert commands or calls or document == "threat-model.md"
    for method, path in calls:
        assert (method, re.sub(r"\{\w+\}", "{}", path).rstrip("/")) in OPERATIONS or path.endswith("/S"), (
            path
        )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_headings_that_are_there(document: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(document)):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        path = DOCS / (name or document)
        assert path.exists(), target
        assert not heading or heading in anchors(path), target


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = path.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return made | set(re.findall(r'<a id="([^"]+)">', text))
