"""Checks of the deployment that `make check` runs besides the linters."""
