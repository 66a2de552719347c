"""People who signed in, by their sessions."""
