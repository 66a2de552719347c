"""The decoder: an NLA pair that turns vectors into text and measures the text's fidelity."""
