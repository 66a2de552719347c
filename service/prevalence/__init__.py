"""Shares of the traffic, estimated from what was sampled of it. Pure: no store, no web framework."""
