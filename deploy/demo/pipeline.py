"""Start the pipeline's processes in order and wait until each is ready."""

import datetime as dt
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.readback import Readback, Totals
from deploy.local import launch, prepare
from deploy.local.home import Home
from deploy.local.model import MODEL_NAME, is_converted
from deploy.local.ports import HOST, Ports
from deploy.local.process import ProcessSpec
from deploy.local.progress import Reporter
from deploy.local.stack import Stack
from service.auth import SCOPES, Role

_STORE_DEADLINE_SECONDS = 60.0
_PREPARE_DEADLINE_SECONDS = 420.0
# The audited server and the decoder's engine load and compile concurrently, so they share a deadline.
_ENGINE_DEADLINE_SECONDS = 900.0
KEY_RIGHTS = ("--role", "text-reader")
# Whoever reads texts is not who reviews that: a key each, as in production.
AUDITOR_RIGHTS = ("--role", "auditor")
# The visitor of the console tries every page of it.
CONSOLE_RIGHTS = tuple(
    word
    for scope in sorted({*SCOPES[Role.REVIEWER], *SCOPES[Role.AUDITOR], *SCOPES[Role.OPERATOR]})
    for word in ("--scope", scope)
)


class KeyCreationError(RuntimeError):
    """``subtext key create`` failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A running pipeline."""

    plan: launch.LaunchPlan
    readback: Readback
    started_at: dt.datetime
    totals_before: Totals  # REST's totals before this run's first request

    @property
    def openai_url(self) -> str:
        """Base URL of the audited OpenAI endpoint."""
        return f"http://{HOST}:{self.plan.ports.openai}/v1"

    @property
    def api_url(self) -> str:
        """Base URL of the REST service."""
        return api_url(self.plan.ports)

    @property
    def console_url(self) -> str:
        """Address of the console. Its key stands after the `#`, which browsers send to nobody."""
        return f"{self.api_url}/console/#key={self.plan.home.console_key_file.read_text().strip()}"


def api_url(ports: Ports) -> str:
    """Return the REST service's base URL."""
    return f"http://{HOST}:{ports.api}"


def start(
    stack: Stack, home: Home, ports: Ports, reporter: Reporter, *, is_eager: bool, threads: int
) -> Pipeline:
    """Start every process and return when a request can be sent, explained and read back.

    The decoder is assembled while the audited server starts, which shortens the first run. Raises
    ProcessDiedError, StartTimeoutError, KeyCreationError or FileNotFoundError.
    """
    started_at = dt.datetime.now(dt.UTC)
    target = prepare.decoder_target(launch.SHIPPED_DECODER, home.decoders_dir)
    database_url = _start_stores(stack, home, ports)
    plan = launch.LaunchPlan(
        home=home,
        ports=ports,
        model_dir=home.models_dir / MODEL_NAME,
        decoder_dir=target,
        database_url=database_url,
        threads=threads,
        is_eager=is_eager,
    )
    stack.run(launch.migrate(plan), "migrating the database", _STORE_DEADLINE_SECONDS)
    stack.start(launch.service(plan))
    stack.start(launch.log(plan))
    if not is_converted(home.models_dir):
        stack.run(
            _preparing("model", home.models_dir),
            f"converting {MODEL_NAME} to float32 (once)",
            _PREPARE_DEADLINE_SECONDS,
        )
    stack.start(launch.sidecar(plan))
    stack.start(launch.vllm(plan))
    if not target.exists():
        stack.run(
            _preparing("decoder", launch.SHIPPED_DECODER, plan.model_dir, target),
            f"assembling the decoder {launch.SHIPPED_DECODER.name} (once)",
            _PREPARE_DEADLINE_SECONDS,
        )
    stack.start(launch.worker(plan))
    stack.wait_ready({"REST service": f"{api_url(ports)}/readyz"}, _STORE_DEADLINE_SECONDS)
    readback = _open_readback(plan)
    _ensure_key(plan, "demo-auditor", AUDITOR_RIGHTS, plan.home.auditor_key_file)
    _ensure_key(plan, "demo-console", CONSOLE_RIGHTS, plan.home.console_key_file)
    totals_before = readback.totals(started_at)
    compiled = "" if is_eager else ", compiled; minutes at the first start"
    stack.wait_ready(
        {
            "sidecar": f"http://{HOST}:{ports.sidecar}/readyz",
            f"audited vLLM server ({MODEL_NAME}{compiled})": f"http://{HOST}:{ports.openai}/health",
            "decode worker with its own engine": f"http://{HOST}:{ports.worker}/readyz",
        },
        _ENGINE_DEADLINE_SECONDS,
    )
    reporter.line("everything is ready")
    return Pipeline(plan=plan, readback=readback, started_at=started_at, totals_before=totals_before)


def can_compile() -> bool:
    """Return whether torch.compile can work here: it needs a C++ compiler and Python's headers."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return any(map(shutil.which, ("g++", "c++", "clang++"))) and headers.exists()


def _start_stores(stack: Stack, home: Home, ports: Ports) -> str:
    stack.start(launch.postgres(home))
    stack.start(launch.valkey(home, ports.valkey))
    url_file = launch.url_file(home)
    stack.wait_until(
        "embedded PostgreSQL and Valkey",
        lambda: url_file.exists() and _listens(ports.valkey),
        _STORE_DEADLINE_SECONDS,
    )
    return url_file.read_text()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _preparing(what: str, *paths: Path) -> ProcessSpec:
    command = (sys.executable, "-m", "deploy.local.prepare", what, *map(str, paths))
    return ProcessSpec(name=f"prepare-{what}", command=command, env={"HF_HUB_OFFLINE": "1"})


def _open_readback(plan: launch.LaunchPlan) -> Readback:
    key_file = plan.home.api_key_file
    if key_file.exists():
        readback = Readback(api_url(plan.ports), key_file.read_text().strip())
        if readback.is_authorized():
            return readback
    return Readback(api_url(plan.ports), _make_key(plan, "demo", KEY_RIGHTS, key_file))


def _ensure_key(plan: launch.LaunchPlan, name: str, rights: Sequence[str], key_file: Path) -> None:
    if key_file.exists():
        with Readback(api_url(plan.ports), key_file.read_text().strip()) as reader:
            if reader.is_authorized():
                return
    _make_key(plan, name, rights, key_file)


def _make_key(plan: launch.LaunchPlan, name: str, rights: Sequence[str], key_file: Path) -> str:
    key = _create_key(plan, name, rights)
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_text(f"{key}\n")
    return key


def _create_key(plan: launch.LaunchPlan, name: str, rights: Sequence[str]) -> str:
    spec = launch.create_key(plan, name, rights)
    done = subprocess.run(
        spec.command, env=launch.full_env(spec), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise KeyCreationError(f"subtext key create failed: {done.stderr.strip()}")
    return done.stdout.strip()
