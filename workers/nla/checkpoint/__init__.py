"""A pair's files: what they must say, and whether they fit each other."""
