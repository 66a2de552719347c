"""The database: tables, engine, migrations and every query. Knows no web framework."""
