"""Retention: what is kept for how long, and the legal holds that come before it."""
