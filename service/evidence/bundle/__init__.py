"""What an export hands out, and what checks it without a store: rows, entries, proof, manifest and seal."""
