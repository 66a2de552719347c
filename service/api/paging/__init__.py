"""Pages of a listing: their parameters, their cursors and the link to the next one."""
