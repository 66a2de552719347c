"""What the service looks at from time to time, for its metrics."""
