"""What one run measured, kept as JSON lines: one line a finished round, so that a run can go on."""

from collections.abc import Sequence
from pathlib import Path

import msgspec


class CaptureFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the plugin and its sidecar said about one run."""

    overhead_seconds: dict[str, float | None]  # median a step, by whether any row was taken
    requests_seen: int
    requests_sampled: int
    rows_sampled: int
    rows_handed_over: int
    dropped: dict[str, int]  # rows by reason, in the plugin
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
    """What makes rounds comparable: a run that goes on must have the same."""

    seed: int
    seconds: float
    arms: list[str]
    turns: dict[int, int]  # requests of a run, by concurrency

    @property
    def concurrency(self) -> list[int]:
        """The concurrencies, ascending."""
        return sorted(self.turns)


class ResumeError(RuntimeError):
    """The state cannot be gone on from; the message tells why."""


class ResultsFile:
    """The state file: its first line is the plan, each further one a round."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, plan: Plan) -> None:
        """Start anew; what was there is kept beside it as ``.old``."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._path.rename(self._path.with_suffix(".old"))
        self._path.write_bytes(msgspec.json.encode(plan) + b"\n")

    def add(self, finished: Round) -> None:
        """Append a round."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(finished) + b"\n")

    def read(self) -> tuple[Plan, list[Round]]:
        """Return plan and rounds; a last line that a kill cut off is left out. Raises ResumeError."""
        if not self._path.exists():
            raise ResumeError(f"--resume: there is no {self._path}; run without it first")
        first, *lines = self._path.read_bytes().splitlines()
        return msgspec.json.decode(first, type=Plan), _rounds(lines)

    def truncate_to(self, plan: Plan, rounds: Sequence[Round]) -> None:
        """Write plan and rounds anew, without a torn line at the end."""
        encoded = [msgspec.json.encode(part) for part in (plan, *rounds)]
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_bytes(b"\n".join(encoded) + b"\n")
        unfinished.rename(self._path)


def check_same(
    plan: Plan, *, seed: int, seconds: float, arms: Sequence[str], concurrency: Sequence[int]
) -> None:
    """Raise ResumeError when the options differ from those of the rounds that are there."""
    asked = {"seed": seed, "seconds": seconds, "arms": list(arms), "concurrency": sorted(concurrency)}
    for name, value in asked.items():
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
