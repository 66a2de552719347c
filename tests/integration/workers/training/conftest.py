"""Toy models with their own tokenizers: random weights, real architectures, seconds instead of minutes."""

from tests.support.training_fixtures import toy_family, toy_home, toy_model, toy_tokenizer

__all__ = ["toy_family", "toy_home", "toy_model", "toy_tokenizer"]
