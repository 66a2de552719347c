"""Control prompts through the audited endpoint, to see whether the audit would have told."""
