"""Parts that fail and clients that mean harm, against the real parts."""

from tests.support.worker_fixtures import bench, concepts_file, make_bench, worker_settings

__all__ = ["bench", "concepts_file", "make_bench", "worker_settings"]
