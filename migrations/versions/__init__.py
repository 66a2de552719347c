"""One module a revision, in a straight line."""
