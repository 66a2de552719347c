"""Queries of the API: what is stored, page by page. Nothing here changes a row."""
