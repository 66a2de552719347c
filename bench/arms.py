"""The arms of the capture benchmark and the bars that they must reach: data, no doing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.ratios import Bar
from deploy.local.launch import LAYER

BASELINE: Final = "vanilla"
SAME_PROCESS: Final = "idle"  # whose process every captured arm shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One vLLM process tree. All have vLLM's default flags but for what is named here."""

    name: str
    is_eager: bool = False
    is_captured: bool = False  # has the plugin's key in --additional-config
    has_vllm_lens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of serving the same traffic."""

    name: str
    title: str
    server: Server
    policy: Mapping[str, Any] | None = None  # the plugin's, changed while the server runs
    is_reader_stopped: bool = False  # the sidecar is suspended: nobody reads the plugin's socket
    extra_body: Mapping[str, Any] = field(default_factory=dict)  # of every request
    throughput: Bar | None = None  # ratio to the baseline
    itl_p99: Bar | None = None  # ratio to the baseline


VANILLA: Final = Server(name="vanilla")
AGAIN: Final = Server(name="vanilla-again")
CAPTURED: Final = Server(name="captured", is_captured=True)
EAGER: Final = Server(name="eager", is_eager=True)
LENS: Final = Server(name="vllm-lens", has_vllm_lens=True)

_EVERY_EIGHTH: Final = {
    "request_rate": 1.0,
    "decode_stride": 8,
    "window": 1,
    "prompt_window": 1,
    "skip_first": 10,
    "max_rows_per_request": 1_000_000,
    "seed": 0,
}
_EVERY_TOKEN: Final = {**_EVERY_EIGHTH, "decode_stride": 1, "prompt_window": 1024, "skip_first": 0}
IDLE_POLICY: Final = {**_EVERY_EIGHTH, "request_rate": 0.0}

ARMS: Final = (
    Arm(name=BASELINE, title="vanilla: no plugin key", server=VANILLA),
    Arm(name="again", title="vanilla again: a second process, the noise floor", server=AGAIN),
    Arm(
        name="idle",
        title="plugin idle: request rate 0",
        server=CAPTURED,
        policy=IDLE_POLICY,
        throughput=Bar("at_least", 0.99),
        itl_p99=Bar("at_most", 1.05),
    ),
    Arm(
        name="one-percent",
        title="1% of requests, every 8th token",
        server=CAPTURED,
        policy={**_EVERY_EIGHTH, "request_rate": 0.01},
        throughput=Bar("at_least", 0.98),
        itl_p99=Bar("at_most", 1.05),
    ),
    Arm(
        name="eighth",
        title="100% of requests, every 8th token",
        server=CAPTURED,
        policy=_EVERY_EIGHTH,
        throughput=Bar("at_least", 0.97),
        itl_p99=Bar("at_most", 1.08),
    ),
    Arm(
        name="saturated",
        title="100% of requests, every token, reader stopped",
        server=CAPTURED,
        policy=_EVERY_TOKEN,
        is_reader_stopped=True,
        throughput=Bar("at_least", 0.97),
        itl_p99=Bar("at_most", 1.08),
    ),
    Arm(name="eager", title="vanilla with --enforce-eager", server=EAGER),
    Arm(
        name="vllm-lens",
        title="vllm-lens: 100% of requests, every token",
        server=LENS,
        # As its own client asks for one layer.
        extra_body={"vllm_xargs": {"output_residual_stream": json.dumps([LAYER])}},
    ),
)

DEFAULT_ARMS: Final = tuple(arm.name for arm in ARMS if arm.server in {VANILLA, AGAIN, CAPTURED})


def choose_arms(names: str) -> list[Arm]:
    """Return the named arms, comma-separated, the baseline always first; raises ValueError."""
    wanted = names.split(",")
    unknown = sorted(set(wanted) - {arm.name for arm in ARMS})
    if unknown:
        raise ValueError(
            f"--arms: unknown {', '.join(unknown)}; known are {', '.join(arm.name for arm in ARMS)}"
        )
    return [arm for arm in ARMS if arm.name in wanted or arm.name == BASELINE]
