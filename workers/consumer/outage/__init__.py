"""A decoder that breaks or hangs, told apart from a row that cannot be read."""
