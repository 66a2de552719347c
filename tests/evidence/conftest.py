"""A worker loop on real Postgres and Valkey around the in-memory decoder."""

from tests.support.worker_fixtures import concepts_file, make_bench, worker_settings

__all__ = ["concepts_file", "make_bench", "worker_settings"]
