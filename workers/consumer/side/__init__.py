"""What a worker does beside reading, each on a thread of its own."""
