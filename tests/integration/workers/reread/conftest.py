"""A worker loop that keeps vectors, around the in-memory decoder."""

from tests.support.worker_fixtures import concepts_file, kept_vectors, make_bench, worker_settings

__all__ = ["concepts_file", "kept_vectors", "make_bench", "worker_settings"]
