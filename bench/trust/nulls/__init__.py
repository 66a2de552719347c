"""The nulls of bench-trust: what the worker's own rule flags where nothing is to be found."""
