"""A pair at work: prompts, AV, AR, and the decoder of both."""
