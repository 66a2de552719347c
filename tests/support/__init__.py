"""What tests share: builders, waiting, services.

No tests; fixtures stand in conftest modules, or here in a module that two of those import.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
