"""What is read of the engine that capture runs in."""

from importlib.metadata import PackageNotFoundError

import pytest

from subtext_sidecar.plugin.vllm import engine


def test_the_plugins_version_is_told_where_nothing_else_of_ours_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name != "subtext-sidecar":
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(engine, "version", version)

    assert engine.program_versions()["subtext"] == "1.2.3"
