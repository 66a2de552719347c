"""One running pipeline for all end-to-end tests: starting it costs minutes on two cores."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import launch
from deploy.local.home import Home, make_draw_secret, run_dir_of
from deploy.local.ports import Ports, choose_ports
from deploy.local.prepare import assemble_decoder, decoder_target
from service.store.migrate import upgrade
from tests.e2e.pipeline import ALL_SCOPES, START_SECONDS, Pipeline, wait_for
from tests.support.held import held


@pytest.fixture(scope="session")
def home(state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A fresh state directory that shares what is expensive to make."""
    root = tmp_path_factory.mktemp("subtext")
    for shared in ("models", "decoders", "vllm-cache"):
        (state_dir / shared).mkdir(exist_ok=True)
        (root / shared).symlink_to(state_dir / shared)
    # The socket's path is hashed into vLLM's compile cache: a stable one spares later runs minutes.
    run_dir = run_dir_of(state_dir / "e2e")
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    home = Home(root=root, run_dir=run_dir)
    make_draw_secret(home.draw_secret_file)
    home.logs_dir.mkdir()
    home.valkey_dir.mkdir()
    return home


@pytest.fixture(scope="session")
def decoder_dir(home: Home, model_dir: Path) -> Path:
    target = decoder_target(launch.SHIPPED_DECODER, home.decoders_dir)
    assemble_decoder(launch.SHIPPED_DECODER, model_dir, target)
    return target


@pytest.fixture(scope="package")
def pipeline(home: Home, model_dir: Path, decoder_dir: Path) -> Iterator[Pipeline]:
    """PostgreSQL, Valkey, vLLM with the plugin, sidecar, worker and service, all ready."""
    plan = launch.LaunchPlan(
        home=home,
        ports=choose_ports(Ports()),
        model_dir=model_dir,
        decoder_dir=decoder_dir,
        database_url="",
        threads=2,
        is_eager=shutil.which("g++") is None,
        # The reconciliation counts every stratum, and opt-in needs a budget.
        sampling={"honour_opt_in": True, "honour_opt_out": True, "rows_per_second": 1e6},
    )
    with contextlib.ExitStack() as stack:
        pipeline = Pipeline(plan, home.logs_dir)
        stack.callback(pipeline.stop_all)
        with held(home.cache_dir):
            _start(pipeline, home)
        yield pipeline


def _start(pipeline: Pipeline, home: Home) -> None:
    ports = pipeline.plan.ports
    pipeline.start(launch.postgres(home))
    pipeline.start(launch.valkey(home, ports.valkey))
    wait_for("PostgreSQL's address", launch.url_file(home).exists, 60)
    url = launch.url_file(home).read_text()
    upgrade(url)
    pipeline.plan = dataclasses.replace(pipeline.plan, database_url=url)
    pipeline.api_key = create_key(url, ALL_SCOPES)
    for spec in (launch.vllm, launch.sidecar, launch.worker, launch.service):
        pipeline.start(spec(pipeline.plan))
    pipeline.wait_ready(ports.openai, "/health", START_SECONDS)
    for port in (ports.sidecar, ports.worker, ports.api):
        pipeline.wait_ready(port, "/readyz", START_SECONDS)


def create_key(database_url: str, scopes: tuple[str, ...]) -> str:
    """Create an API key as an operator does, with the command line."""
    command = [str(Path(sys.executable).parent / "subtext"), "key", "create", "--name", "e2e"]
    for scope in scopes:
        command += ["--scope", scope]
    done = subprocess.run(
        command,
        env=os.environ | {"SUBTEXT_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]
