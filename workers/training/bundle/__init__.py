"""Trainings on another machine: what one needs travels in pieces, and so does the pair that comes back."""
