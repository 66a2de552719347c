"""What became of each canary that was sent: the only place that knows which concept it was sent for."""
