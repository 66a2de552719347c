"""Reading kept vectors again with the decoder of then, and comparing with what was recorded."""
