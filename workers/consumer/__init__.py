"""The process that takes samples from the stream, has them read and judged, and stores what came out."""
