"""Every counter and reason of the contract is given by the code of its hop, and no other name is."""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from subtext_sidecar.contract import counters
from subtext_sidecar.contract.counters import (
    COUNTERS,
    DEAD_LETTERED,
    IGNORED,
    INVALID,
    CounterName,
    DeadLetterReason,
    Hop,
    LossKind,
    RejectReason,
    TraceFault,
)
from tests.support import ROOT

SIDECAR = ROOT / "sidecar/subtext_sidecar"
SOURCES = {
    Hop.PLUGIN: sorted((SIDECAR / "plugin").rglob("*.py")),
    # What both processes share shows what others counted.
    Hop.SIDECAR: sorted(
        path for folder in ("shipper", "screen") for path in (SIDECAR / folder).glob("*.py")
    ),
    Hop.WORKER: sorted([*(ROOT / "workers").glob("*.py"), *(ROOT / "workers/consumer").rglob("*.py")]),
}
# Counters by reason, which producers take from these by the reason.
BY_REASON: dict[str, list[CounterName]] = {
    "IGNORED": [*IGNORED.values()],
    "INVALID": [*INVALID.values()],
    "DEAD_LETTERED": [*DEAD_LETTERED.values()],
}
PREFIXES = tuple(f"{prefix}_" for prefix in (*LossKind, "ignored", "screened"))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def named(paths: list[Path], enumeration: type[StrEnum]) -> set[str]:
    """The members that the code reads off this enumeration."""
    return {
        enumeration[node.attr]
        for path in paths
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == enumeration.__name__
    }


def looked_up(paths: list[Path]) -> set[str]:
    """The counters that the code takes by their reason."""
    return {
        counter
        for path in paths
        for node in nodes(path)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        for counter in BY_REASON.get(node.value.id, ())
    }


@pytest.mark.parametrize("hop", Hop)
def test_a_hop_counts_everything_that_the_contract_says_it_counts(hop: Hop) -> None:
    enumeration: type[StrEnum] = getattr(counters, f"{hop.title()}Counter")

    counted = named(SOURCES[hop], enumeration) | looked_up(SOURCES[hop])

    assert counted == {counter for counter in COUNTERS if counter.hop == hop}


@pytest.mark.parametrize("enumeration", [RejectReason, DeadLetterReason, TraceFault])
def test_every_reason_is_given_somewhere(enumeration: type[StrEnum]) -> None:
    contract = sorted((SIDECAR / "contract").glob("record.py"))
    everywhere = [*contract, *(path for paths in SOURCES.values() for path in paths)]

    assert named(everywhere, enumeration) == set(enumeration)


def strings(path: Path) -> Iterator[str]:
    """The strings of a module that are no docstrings, pieces of f-strings included."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.parametrize("hop", Hop)
def test_no_counter_is_named_by_a_string(hop: Hop) -> None:
    for path in SOURCES[hop]:
        for text in strings(path):
            assert text not in set(COUNTERS), f"{path.name}: take {text!r} from contract.counters"
            assert not re.match("|".join(PREFIXES), text), f"{path.name}: {text!r}"
