"""What plugin, sidecar and workers share: the only modules of this package that others may import."""
