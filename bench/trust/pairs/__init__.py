"""The pairs of bench-trust: whether a reading names what the model is about to say."""
