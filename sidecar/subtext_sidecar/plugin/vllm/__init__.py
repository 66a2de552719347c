"""Where the plugin touches vLLM; everything that another version of it could break."""
