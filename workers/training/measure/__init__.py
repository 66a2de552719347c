"""Evaluation of a trained pair, and its card."""
