"""Scores by which the sidecar chooses rows for decoding, and how they are fitted."""
