"""The evidence log without a database: entries, tree, signed checkpoints, and what checks them."""
