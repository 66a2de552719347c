"""Shared test helpers: builders, waiting, services.

Fixtures belong in conftest modules, or here if two conftest modules import them.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository's root folder."""
