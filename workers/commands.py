"""The commands of this package, loaded by name from `service.cli`; each imports its work when called."""


def train(argv: list[str]) -> int:
    """Train an NLA pair."""
    from workers.training.cli import train as run

    return run(argv)


def worker(argv: list[str]) -> int:
    """Decode samples from the stream."""
    from workers.cli import worker as run

    return run(argv)


def canary(argv: list[str]) -> int:
    """Send control prompts through the audited server."""
    from workers.canary.cli import canary as run

    return run(argv)


def calibrate(argv: list[str]) -> int:
    """Calibrate a decoder, or with ``concepts`` the concepts, on what ``readings`` writes."""
    if argv[:1] == ["concepts"]:
        from workers.calibrate.concepts import calibrate as run_concepts

        return run_concepts(argv[1:])
    if argv[:1] == ["readings"]:
        from workers.calibrate.readings import readings as run_readings

        return run_readings(argv[1:])
    from workers.calibrate.measure import calibrate as run

    return run(argv)


def reread(argv: list[str]) -> int:
    """Read kept vectors again and compare with what was recorded."""
    from workers.reread.command import reread as run

    return run(argv)


def concept(argv: list[str]) -> int:
    """Fit the probe of a concept."""
    from workers.probe.command import concept as run

    return run(argv)
