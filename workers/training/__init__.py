"""The trainer: makes a shipped NLA pair from a model and a prompt source. It serves no traffic."""
