"""What tests share: builders, waiting, services. No tests; fixtures stand in conftest modules."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
