"""Activations that are kept for a while to be read again, encrypted under a key of each tenant's own."""
