"""`make bench-trust`: verdicts where the truth is known, and where nothing is to be found."""
