"""The evidence log in the database: what waits for it, its tree, its checkpoints."""
