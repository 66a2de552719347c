"""`subtext keeper`: runs the jobs of the store, which survive the process that runs them."""
