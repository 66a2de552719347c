"""Benchmarks, one script per claim; each prints a table and a final JSON line."""
