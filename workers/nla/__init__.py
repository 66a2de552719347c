"""The decoder: an NLA pair that turns vectors into text and measures how much the text keeps."""
