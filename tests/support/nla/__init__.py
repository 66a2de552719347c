"""Pairs of random weights, whole families of them, and what they must read like."""
