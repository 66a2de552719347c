"""Running a pair: prompts, AV, AR, and the decoder that combines them."""
