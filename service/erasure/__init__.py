"""Erasure: rows go, by request or by retention, and tombstones stay."""
