"""Which requests and rows are read, and with what probability."""
