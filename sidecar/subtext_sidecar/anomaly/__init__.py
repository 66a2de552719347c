"""The anomaly detector: fitted once on benign traffic, then used by sidecar and worker alike."""
