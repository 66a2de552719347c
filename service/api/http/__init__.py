"""What every route shares of HTTP: errors, headers, problem answers and the description."""
