"""The application that keeps and serves the audit: store, REST, keys, command line."""
