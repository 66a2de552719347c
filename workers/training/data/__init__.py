"""From prompts to labelled vectors and the texts that belong to them."""
