"""Deleting rows from the store so that the evidence log still accounts for every entry."""
