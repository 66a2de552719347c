"""Tenants: who they are, and whose rows a transaction is about."""
