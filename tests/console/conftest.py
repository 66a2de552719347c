"""What every test of the console uses."""

from tests.support.console import browser, console

__all__ = ["browser", "console"]
