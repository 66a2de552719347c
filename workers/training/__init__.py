"""The trainer: from a model and a prompt source to a shipped NLA pair, on the CPU; serves no traffic."""
