"""What is kept, for how long, and what may not go."""
