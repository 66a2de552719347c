"""Exports in the store: what was asked for, what became of it, and which may still be downloaded."""
