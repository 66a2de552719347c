"""The commands ``subtext sidecar``, also ``python -m subtext_sidecar``, ``screen`` and ``subject``."""

import os


def sidecar(argv: list[str]) -> int:
    """Run the sidecar until SIGTERM or SIGINT, then drain; returns the exit status."""
    # Its matrices are small: more threads would only take cores from the server that is audited.
    # Read when numpy is first imported.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from subtext_sidecar.shipper.process import run
    from subtext_sidecar.shipper.settings import parse_settings

    return run(parse_settings(argv, os.environ))


def screen(argv: list[str]) -> int:
    """Fit or show the reference of the sidecar's screen; returns the exit status."""
    from subtext_sidecar.screen.command import run

    return run(argv)


def subject(argv: list[str]) -> int:
    """Print the subject key of the id on standard input; returns the exit status."""
    from subtext_sidecar.subject_command import run

    return run(argv)
