"""One script a claim: each prints a table and, last, one JSON line."""
