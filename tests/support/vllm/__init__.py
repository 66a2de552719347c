"""Run real vLLM engines in separate processes, collect their plugins' messages, and judge them."""
