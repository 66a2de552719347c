"""Real vLLM engines in processes of their own, what their plugins send, and who judges it."""
