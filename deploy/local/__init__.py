"""A whole deployment on one machine, as a library: demo, tests and benchmarks start it."""
