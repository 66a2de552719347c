"""Rows go, and the log accounts for them."""
