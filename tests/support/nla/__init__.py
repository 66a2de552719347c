"""Pairs with random weights for several model families, and a reference implementation."""
