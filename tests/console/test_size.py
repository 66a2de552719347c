"""How much script the console is."""

from deploy.checks.console import DIST, SCRIPT_AT_MOST_BYTES, script_bytes


def test_all_script_together_stays_within_what_the_console_may_load() -> None:
    assert 0 < script_bytes(DIST) <= SCRIPT_AT_MOST_BYTES
