"""What every test of the console uses."""

from tests.support.console import console, driver

__all__ = ["console", "driver"]
