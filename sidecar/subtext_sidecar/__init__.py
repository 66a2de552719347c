"""Subtext inside and beside the audited server: plugin, record format, sidecar process."""
