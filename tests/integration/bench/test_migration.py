"""The migration benchmark on a store so small that it takes seconds."""

import json

import pytest

from bench.migration import main


def test_clients_go_on_while_a_filled_store_is_migrated(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--samples", "2000", "--kills", "1"])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == (0 if found["ok"] else 1)
    assert found["samples"] == 2000
    assert set(found["longest_seconds"]) == {
        "read samples",
        "read explanations",
        "read flags",
        "write samples",
        "write explanations",
    }
    assert min(found["statements"].values()) > 0
