"""The reconstruction part of bench-trust: whether what the decoder cannot rebuild is strange."""
