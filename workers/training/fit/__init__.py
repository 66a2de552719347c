"""The models in training, their tasks, and the training loop."""
