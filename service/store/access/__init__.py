"""Who read which text, when and why, and who changed what: written once and never changed."""
