"""Who may see a text, for which purpose, and the entry of the access log that comes before it."""
