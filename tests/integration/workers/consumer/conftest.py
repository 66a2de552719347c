"""A worker loop on real Postgres and Valkey around the in-memory decoder."""

from tests.support.worker_fixtures import bench, concepts_file, kept_vectors, make_bench, worker_settings

__all__ = ["bench", "concepts_file", "kept_vectors", "make_bench", "worker_settings"]
