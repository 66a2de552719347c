"""The sidecar's process: takes blocks, screens rows, ships records."""
