"""Everything around the processes: the demo, and what Prometheus, Grafana and compose read."""
