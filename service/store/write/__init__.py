"""What the workers store: idempotent, each within its caller's one transaction."""
