"""One measure of how unlike benign traffic an activation is: fitted once, scored by sidecar and worker."""
