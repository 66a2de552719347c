"""The command ``subtext``: finds commands by entry point and imports only the one it runs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Final

GROUP: Final = "subtext.commands"

# One line each, kept here so that listing commands imports none of them.
SUMMARIES: Final[Mapping[str, str]] = {
    "demo": "serve, audit and explain a real model on this machine",
    "sidecar": "receive sampled activations from vLLM and ship them to the stream",
    "screen": "fit the reference by which the sidecar screens what it receives",
    "worker": "decode activations from the stream into explanations",
    "service": "serve the REST API",
    "migrate": "bring the database to the newest schema",
    "key": "create, list, rotate and revoke API keys",
    "subject": "print the subject key of a person's id",
    "report": "write the monitoring report of a period as JSON and PDF",
    "session": "list and revoke sessions of people and keys",
    "retention": "remove what is beyond its period and under no legal hold",
    "tenant": "create and list tenants",
    "log": "write the evidence log and sign its checkpoints",
    "keeper": "run the jobs of the store: exports and what is due at its time",
    "witness": "cosign the evidence log's checkpoints while they are one history",
    "timestamp": "have an authority say when the evidence log's checkpoints were there",
    "verify": "hold a bundle, or the store, against the evidence log's signatures",
    "reread": "read kept vectors again with the decoder of then, and compare",
    "vectors": "make, rotate and destroy the keys of kept vectors, and delete what has expired",
    "erase": "erase what was asked to be erased",
    "train": "train a decoder for a model and layer",
    "calibrate": "measure a decoder against shuffled pairs and freeze the reference",
    "concept": "fit the probe of a concept on two files of prompts",
    "canary": "send control prompts through the audited server and tell which are found",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; 2 when there is no such command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {point.name: point for point in entry_points(group=GROUP)}
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(usage(commands))
        return 0
    if arguments[0] in {"-V", "--version"}:
        sys.stdout.write(f"subtext {version('subtext')}\n")
        return 0
    point = commands.get(arguments[0])
    if point is None:
        sys.stderr.write(f"subtext: there is no command {arguments[0]!r}\n\n{usage(commands)}")
        return 2
    return _run(point, arguments[1:])


def usage(commands: Mapping[str, EntryPoint]) -> str:
    """Return the list of commands, the ones of this repository first and in reading order."""
    known = [name for name in SUMMARIES if name in commands]
    names = known + sorted(set(commands) - set(known))
    lines = [f"  {name:<10} {SUMMARIES.get(name, commands[name].value)}" for name in names]
    return "\n".join(
        [
            "usage: subtext COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "subtext COMMAND --help tells its options.",
            "",
        ]
    )


def _run(point: EntryPoint, arguments: list[str]) -> int:
    command: Callable[[list[str]], int] = point.load()
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
