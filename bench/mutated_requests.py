"""Send random and mutated ids and ``extra_args`` through the plugin's request path: capture must stay on.

``make bench-mutated_requests``. Every request is made by vLLM's own classes, a third of them is sampled,
and what is captured is encoded and read back as by the sidecar. Anything that is raised would turn
capture off and ends the run; what the boundary around one request caught is counted; the resident set is
read ten times, after the first tenth.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import psutil

from bench.request_path import Arrival, RequestPath
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling.split import EngineHalves

_POLICY: Final = CapturePolicy(
    request_rate=0.3,
    skip_first=0,
    honour_opt_in=True,
    honour_opt_out=True,
    honour_trace=True,
    rows_per_second=1e9,
)
_SPLIT: Final = EngineHalves(computes_prompts=True, writes_answers=True)
_STEP: Final = 64
_PARTS: Final = 10
_FLAT_SHARE: Final = 0.02  # growth of the resident set that counts as flat
_MIB: Final = 1 << 20
_SEEDS: Final = (
    *(
        "chatcmpl-a",
        "3_chatcmpl-a",
        "cmpl-a-0",
        "1_cmpl-a-12-",
        "resp_a_0",
        "generate-tokens-a",
        "rt-",
        "a",
    ),
    *("a", "a-0123456789abcdef-beam-3", "decision-", "9" * 300 + "_cmpl-x", "", "-", "~"),
)
_PIECES: Final = (
    *("\x00", "\ud800", "\n", "\x1b[31m", "\u202e", "\ufffe", "é", "中", "😀", "0" * 40, "_", "-", "~"),
    *("chatcmpl-", "cmpl-", "-beam-1", "0_", "x" * 300),
)
_PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_STATE: Final = "ot=rv:00000000000001;th:8,other=1"
_TOKEN: Final = f"1800000000.{'0f' * 16}.{'5a' * 32}.{'a5' * 32}"
_KEYS: Final = (
    *("subtext", "subtext_canary", "traceparent", "tracestate", "kv_transfer_params", "other", ""),
)
_TRANSFER_KEYS: Final = ("do_remote_decode", "do_remote_prefill", "remote_request_id", "transfer_id", "x")


class Figures(NamedTuple):
    """One run."""

    requests: int
    seconds: float
    sampled: int
    captures_read_back: int
    caught: int  # exceptions that the boundary of one request caught
    resident_mib: list[float]  # after each part of the run

    @property
    def is_flat(self) -> bool:
        """Whether memory stayed what it was after the first part."""
        return max(self.resident_mib[1:]) <= self.resident_mib[0] * (1.0 + _FLAT_SHARE)


def run(requests: int, seed: int = 0) -> Figures:
    """Send so many requests; raises what would turn capture off."""
    path, chance = RequestPath(_POLICY, halves=_SPLIT), random.Random(seed)  # noqa: S311  # no secret
    process, started = psutil.Process(), time.perf_counter()
    arrivals = _arrivals(chance)
    captures, resident = 0, []
    for _ in range(_PARTS):
        left = requests // _PARTS
        while left > 0:
            step = list(itertools.islice(arrivals, min(_STEP, left)))
            captures += len({facts.capture_id for facts in path.serve(step)})
            left -= len(step)
        resident.append(process.memory_info().rss / _MIB)
    counts = path.counts()
    return Figures(
        requests=counts["requests_seen"] + counts["requests_prefilled"],
        seconds=time.perf_counter() - started,
        sampled=counts["requests_sampled"] + counts["requests_prefilled_sampled"],
        captures_read_back=captures,
        caught=counts["unobservable_unreadable"],
        resident_mib=resident,
    )


def main(argv: Sequence[str]) -> int:
    """Run and report; returns 0 when nothing was caught and memory was flat."""
    parser = argparse.ArgumentParser(prog="bench-mutated_requests", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(list(argv))
    figures = run(options.requests, options.seed)
    for name, value in figures._asdict().items():
        sys.stdout.write(f"{name:20} {value}\n")
    sys.stdout.write(json.dumps({**figures._asdict(), "is_flat": figures.is_flat}) + "\n")
    return 0 if figures.is_flat and not figures.caught else 1


def _arrivals(chance: random.Random) -> Iterator[Arrival]:
    for number in itertools.count():
        prompt = chance.choice((1, 2, 4, 9))
        yield Arrival(
            # vLLM's own ids differ, whatever clients send.
            f"{_text(chance, chance.choice(_SEEDS))}-{number:08x}",
            prompt,
            chance.choice((0, 0, prompt - 1)),
            max_tokens=chance.choice((1, 16)),
            extra_args=_extra_args(chance),
            is_received=bool(chance.randrange(2)),
        )


def _text(chance: random.Random, text: str) -> str:
    """Return the text with a few random changes."""
    for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
        at = chance.randint(0, len(text))
        changed = (
            lambda text, at: text[:at] + chance.choice(_PIECES) + text[at:],
            lambda text, at: text[:at] + text[at + chance.randint(1, 4) :],
            lambda text, at: text[:at] + chr(chance.randrange(0x11_0000)) + text[at + 1 :],
            lambda text, _: text * chance.choice((1, 2, 30)),
        )
        text = chance.choice(changed)(text, at)[:5000]
    return text


def _extra_args(chance: random.Random) -> dict[str, Any] | None:
    if not chance.randrange(5):
        return None
    return {chance.choice(_KEYS): _value(chance, depth=2) for _ in range(chance.randint(0, 3))} | _transfer(
        chance
    )


def _transfer(chance: random.Random) -> dict[str, Any]:
    if chance.randrange(3):
        return {}
    params = {key: _value(chance, depth=1) for key in _TRANSFER_KEYS if chance.randrange(2)}
    return {"kv_transfer_params": params}


def _value(chance: random.Random, *, depth: int) -> Any:
    simple: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: bool(chance.randrange(2)),
        lambda: chance.getrandbits(64) - (1 << 63),
        lambda: chance.choice((0.5, float("nan"), float("inf"))),
        lambda: chance.choice(("on", "off", "ON", "")),
        lambda: _text(chance, _PARENT),
        lambda: _text(chance, _STATE),
        lambda: _text(chance, _TOKEN),
        lambda: _text(chance, "id"),
    )
    if depth and not chance.randrange(5):
        inner = [_value(chance, depth=depth - 1) for _ in range(chance.randint(0, 3))]
        return inner if chance.randrange(2) else {str(number): one for number, one in enumerate(inner)}
    return chance.choice(simple)()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
