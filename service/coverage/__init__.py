"""Balances, losses and blind spots, computed from counts. Pure: no store, no web framework."""
