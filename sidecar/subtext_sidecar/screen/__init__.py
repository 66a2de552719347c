"""The sidecar's screen, which chooses the rows that go on to the decoder, and `subtext screen`."""
