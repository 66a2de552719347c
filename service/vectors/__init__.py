"""`subtext vectors`: the keys of kept vectors, and deleting those whose time is over."""
