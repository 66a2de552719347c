"""What the trained pair is worth, and its card."""
