"""A pair's files: their formats, and the checks that they belong together."""
