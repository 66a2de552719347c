"""The claims of bench-trust: how often what a reading names is right, and how sure it is."""
