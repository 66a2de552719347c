"""A worker on real stores for the tests of this folder."""

from tests.support.worker_fixtures import concepts_file, make_bench, worker_settings

__all__ = ["concepts_file", "make_bench", "worker_settings"]
