"""What the counts of a range say: balances, losses, blind spots. Pure: no store, no web framework."""
