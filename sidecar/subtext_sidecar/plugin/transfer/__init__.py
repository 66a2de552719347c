"""How rows leave the accelerator and the server without holding it up."""
