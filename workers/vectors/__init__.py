"""Keeping activations for a while, so that they can be read again: only those that somebody names."""
