"""Build the training data: prompts, chats, activations, labels and target texts."""
