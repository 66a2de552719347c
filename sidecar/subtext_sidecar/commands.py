"""The command ``subtext sidecar``, also ``python -m subtext_sidecar``."""

import os


def sidecar(argv: list[str]) -> int:
    """Run the sidecar until SIGTERM or SIGINT, then drain; returns the exit status."""
    from subtext_sidecar.process import run
    from subtext_sidecar.settings import parse_settings

    return run(parse_settings(argv, os.environ))
