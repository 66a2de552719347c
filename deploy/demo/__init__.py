"""The whole pipeline on one machine, with one command."""
