"""What a policy that nobody follows yet would have taken."""
