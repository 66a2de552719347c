"""Exports: bundles of a period that an auditor verifies offline, made by jobs and kept for a while."""
