"""Start the servers of bench-capture: real vLLM servers, and Valkey and a sidecar for the captured one."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.arms import IDLE_POLICY, Server
from deploy.local import launch
from deploy.local.home import Home
from deploy.local.model import MODEL_NAME
from deploy.local.ports import HOST, Ports, choose_ports
from deploy.local.process import DemoProcess, ProcessSpec
from deploy.local.stack import Stack

_FIRST_PORT: Final = 8200
_STORE_DEADLINE_SECONDS: Final = 60.0
_ENGINE_DEADLINE_SECONDS: Final = 900.0
_INSTALL_DEADLINE_SECONDS: Final = 120.0
_GIB: Final = 1 << 30
_SERVER_GIB: Final = 3.7  # resident set, including the demo's KV cache of 1 GiB
_LENS_REQUIREMENTS: Final = Path(__file__).with_name("vllm-lens.txt")


class MemoryShortageError(RuntimeError):
    """Not enough memory is free for all servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A ready vLLM server."""

    base_url: str
    process: DemoProcess


class RunningSidecar:
    """The captured server's sidecar."""

    def __init__(self, process: DemoProcess, metrics_url: str, policy_file: Path) -> None:
        self.process = process
        self.metrics_url = metrics_url
        self._policy_file = policy_file

    def set_policy(self, policy: Mapping[str, Any]) -> None:
        """Write a capture policy to the file that the sidecar watches."""
        write_policy(self._policy_file, policy)

    def suspend(self) -> None:
        """Suspend the process, so that the plugin's socket is not read."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the suspended process."""
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.send_signal(signum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """All running servers."""

    servers: Mapping[str, RunningServer]  # by name
    sidecar: RunningSidecar | None
    plugin_metrics_url: str


def start(stack: Stack, home: Home, model_dir: Path, servers: Sequence[Server]) -> Running:
    """Start all servers one after the other and wait until each is ready.

    Raises MemoryShortageError, ProcessDiedError or StartTimeoutError. The stack stops the servers.
    """
    check_memory(servers, psutil.virtual_memory().available)
    ports = choose_ports(
        Ports(plugin=_FIRST_PORT, sidecar=_FIRST_PORT + 1, valkey=_FIRST_PORT + 2, openai=_FIRST_PORT + 10)
    )
    plan = launch.LaunchPlan(
        home=home,
        ports=ports,
        model_dir=model_dir,
        decoder_dir=home.decoders_dir,
        database_url="",
        threads=len(os.sched_getaffinity(0)),
        is_eager=False,
    )
    sidecar = _start_sidecar(stack, plan) if any(server.is_captured for server in servers) else None
    if any(server.has_vllm_lens for server in servers):
        stack.run(_installing_lens(plan), "installing vllm-lens into a folder", _INSTALL_DEADLINE_SECONDS)
    running = {}
    for number, server in enumerate(servers):
        # Ports are chosen one by one, so that an occupied port moves only one server.
        port = choose_ports(Ports(openai=_FIRST_PORT + 10 + number)).openai
        process = stack.start(vllm(plan, server, port))
        stack.wait_ready(
            {f"vLLM server {server.name}": f"http://{HOST}:{port}/health"}, _ENGINE_DEADLINE_SECONDS
        )
        running[server.name] = RunningServer(base_url=f"http://{HOST}:{port}/v1", process=process)
    return Running(
        servers=running, sidecar=sidecar, plugin_metrics_url=f"http://{HOST}:{ports.plugin}/metrics"
    )


def check_memory(servers: Sequence[Server], available_bytes: int) -> None:
    """Raise MemoryShortageError unless all servers fit into the available memory at once."""
    needed, available = _SERVER_GIB * len(servers), available_bytes / _GIB
    if available < needed:
        names = ", ".join(server.name for server in servers)
        raise MemoryShortageError(
            f"{len(servers)} servers at once ({names}) take about {needed:.1f} GiB and {available:.1f} GiB "
            "are free: stop other programs, or name fewer arms with --arms"
        )


def vllm(plan: launch.LaunchPlan, server: Server, port: int) -> ProcessSpec:
    """Return the process of an arm's OpenAI server, with the demo's model and vLLM's defaults."""
    options = {
        "--model": str(plan.model_dir),
        "--served-model-name": MODEL_NAME,
        "--host": HOST,
        "--port": str(port),
        "--dtype": "float32",
        "--max-model-len": "2048",
    }
    if server.is_captured:
        config = {
            "layer": launch.LAYER,
            "socket": plan.home.socket,
            "secret_file": str(plan.home.draw_secret_file),
            "metrics_port": plan.ports.plugin,
            **IDLE_POLICY,
        }
        options["--additional-config"] = json.dumps({"subtext": config})
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [part for option in options.items() for part in option]
    command += ["--enforce-eager"] if server.is_eager else []
    # Only one server is busy at a time, so each may use all cores.
    env = launch.lone_engine_env(plan)
    if server.has_vllm_lens:
        env["PYTHONPATH"] = str(_lens_dir(plan.home))
    return ProcessSpec(name=server.name, command=command, env=env, grace_seconds=15)


def write_policy(path: Path, policy: Mapping[str, Any]) -> None:
    """Replace the policy file atomically."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"capture": dict(policy)}))
    unfinished.rename(path)


def _start_sidecar(stack: Stack, plan: launch.LaunchPlan) -> RunningSidecar:
    policy_file = plan.home.run_dir / "policy.json"
    write_policy(policy_file, IDLE_POLICY)
    stack.start(launch.valkey(plan.home, plan.ports.valkey))
    spec = launch.sidecar(plan)
    env = {**spec.env, "SUBTEXT_POLICY_FILE": str(policy_file), "SUBTEXT_SCREEN_FILE": ""}
    process = stack.start(dataclasses.replace(spec, env=env))
    url = f"http://{HOST}:{plan.ports.sidecar}"
    stack.wait_ready({"sidecar and Valkey": f"{url}/readyz"}, _STORE_DEADLINE_SECONDS)
    return RunningSidecar(process, f"{url}/metrics", policy_file)


def _installing_lens(plan: launch.LaunchPlan) -> ProcessSpec:
    options = ("--no-deps", "--ignore-requires-python", "--upgrade", "--target", str(_lens_dir(plan.home)))
    command = (sys.executable, "-m", "pip", "install", *options, "-r", str(_LENS_REQUIREMENTS))
    return ProcessSpec(name="install-vllm-lens", command=command, env={})


def _lens_dir(home: Home) -> Path:
    return home.root / "vllm-lens"
