"""What goes between the two processes of one machine: the audited server and the sidecar."""
