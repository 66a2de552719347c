"""The requirement files pin everything, once, and name no index."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT

FILES = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+")


def pins(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def normal(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.split("==", maxsplit=1)[0]).lower()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_is_one_exact_pin(path: Path) -> None:
    assert pins(path)
    for line in pins(path):
        assert PIN.fullmatch(line), line


def test_no_package_is_pinned_twice() -> None:
    names = [normal(pin) for path in FILES for pin in pins(path)]

    assert sorted(names) == sorted(set(names))


def test_what_breaks_or_leaks_is_left_out() -> None:
    names = {normal(pin) for path in FILES for pin in pins(path)}

    assert not names & {
        "torchvision",
        "torchaudio",
        "torchcodec",
        "sentry-sdk",
        "fastapi-cloud-cli",
        "llama-cpp-python",
    }
