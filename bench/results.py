"""Results of bench-capture, kept as one JSON line per finished round, so that a run can resume."""

from collections.abc import Sequence
from pathlib import Path

import msgspec


class CaptureFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The plugin's and sidecar's figures for one run."""

    overhead_seconds: dict[str, float | None]  # median per step, by whether rows were sampled
    requests_seen: int
    requests_sampled: int
    rows_sampled: int
    rows_handed_over: int
    dropped: dict[str, int]  # rows dropped in the plugin, by reason
    sidecar_cpu_seconds: float


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One arm at one concurrency in one round."""

    arm: str
    concurrency: int
    requests: int
    tokens: int
    wall_seconds: float
    engine_cpu_seconds: float
    server_cpu_seconds: float
    ttft_seconds: list[float]
    gap_seconds: list[float]  # between tokens of one answer
    capture: CaptureFigures | None = None


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one round."""

    number: int
    runs: list[RunFigures]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that make rounds comparable; a resumed run must have the same."""

    seed: int
    seconds: float
    arms: list[str]
    turns: dict[int, int]  # requests per run, by concurrency

    @property
    def concurrency(self) -> list[int]:
        """The concurrencies, ascending."""
        return sorted(self.turns)


class ResumeError(RuntimeError):
    """The run cannot be resumed; the message says why."""


class ResultsFile:
    """The state file: the first line is the plan, each further line a round."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, plan: Plan) -> None:
        """Start a new file; an existing one is renamed to ``.old``."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._path.rename(self._path.with_suffix(".old"))
        self._path.write_bytes(msgspec.json.encode(plan) + b"\n")

    def add(self, finished: Round) -> None:
        """Append a round."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(finished) + b"\n")

    def read(self) -> tuple[Plan, list[Round]]:
        """Return plan and rounds, ignoring a truncated last line; raises ResumeError."""
        if not self._path.exists():
            raise ResumeError(f"--resume: there is no {self._path}; run without it first")
        first, *lines = self._path.read_bytes().splitlines()
        return msgspec.json.decode(first, type=Plan), _rounds(lines)

    def truncate_to(self, plan: Plan, rounds: Sequence[Round]) -> None:
        """Rewrite the file with plan and rounds, dropping a truncated last line."""
        encoded = [msgspec.json.encode(part) for part in (plan, *rounds)]
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_bytes(b"\n".join(encoded) + b"\n")
        unfinished.rename(self._path)


def check_same(
    plan: Plan, *, seed: int, seconds: float, arms: Sequence[str], concurrency: Sequence[int]
) -> None:
    """Raise ResumeError when the options differ from the plan of the existing rounds."""
    options = {"seed": seed, "seconds": seconds, "arms": list(arms), "concurrency": sorted(concurrency)}
    for name, value in options.items():
        if getattr(plan, name) != value:
            raise ResumeError(f"--resume: --{name} is {value}, the rounds so far had {getattr(plan, name)}")


def _rounds(lines: Sequence[bytes]) -> list[Round]:
    rounds = []
    for line in lines:
        try:
            rounds.append(msgspec.json.decode(line, type=Round))
        except msgspec.DecodeError:
            break
    return rounds
