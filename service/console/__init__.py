"""The console: a page for browsers over the REST API, built from `web/` into `dist/`."""
