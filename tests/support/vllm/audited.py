"""A whole audit around a real OpenAI server: plugin, sidecar, Valkey, worker, PostgreSQL and REST.

The model is tiny and random and the decoder is in memory; every other part is what a deployment runs.
"""

import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store import keys
from service.store.engine import create_engine, session_factory
from tests.support import ROOT
from tests.support.secret import write_secret
from tests.support.services import free_port
from tests.support.vllm import tiny
from tests.support.waiting import wait_until
from workers.consumer import serving, wiring
from workers.judge.embedder import WordEmbedder
from workers.nla.decoder import GivenFacts, Reading
from workers.nla.fake import FakeDecoder, fake_identity
from workers.settings import WorkerSettings

MODEL: Final = "audited"
LAYER: Final = 1
CONTEXT: Final = 1024
PROMPT_ROWS: Final = 2
MOST_ROWS: Final = 64
"""Of one request. An answer within it gives all its rows."""
POLICY: Final = {
    "decode_stride": 1,
    "window": 1,
    "prompt_window": PROMPT_ROWS,
    "skip_first": 0,
    "max_rows_per_request": MOST_ROWS,
}
BOMB: Final = 4242
"""The token whose rows are read as the concept that this deployment watches for."""
CONCEPTS: Final = """
version: 1
concepts:
  - {name: bombs, description: bombs, severity: critical, matchers: [{regex: bomb}]}
"""
_START_SECONDS: Final = 500.0
_STORE_SECONDS: Final = 90.0
_SETTLED_READS: Final = 7  # a second apart, which is three heartbeats
_ENV: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'sidecar'}",
}


class Request(NamedTuple):
    """One request to the OpenAI server."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


def innocent(request_id: str, tokens: int = 5, prompt: Sequence[int] = ()) -> Request:
    """Return a completion as an honest client sends it, with a prompt of its own unless one is given."""
    chance = random.Random(request_id)  # noqa: S311  # no secret
    prompt = prompt or [chance.randrange(100, 4000) for _ in range(5)]
    return completion({"prompt": list(prompt), "max_tokens": tokens}, {"X-Request-Id": request_id})


def completion(body: dict[str, Any], headers: dict[str, str] | None = None) -> Request:
    """Return a completion that goes on to its last token."""
    full = {"model": MODEL, "temperature": 0.0, "ignore_eos": True, "max_tokens": 4, **body}
    return Request("/v1/completions", full, headers or {})


class TokenDecoder(FakeDecoder):
    """Reads the rows of one token as a match of the concept, and no others."""

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading per row, no two alike: a decoder that repeats itself is not trusted."""
        return [
            reading._replace(text=f"{'a bomb' if token_id == BOMB else 'a state'} {secrets.token_hex(8)}")
            for reading, token_id in zip(super().read(vectors, given), given.token_ids, strict=True)
        ]


class Audited:
    """Clients of the running parts."""

    def __init__(
        self,
        openai_url: str,
        sidecar_url: str,
        rest: TestClient,
        headers: dict[str, str],
        sessions: sessionmaker[Session],
    ) -> None:
        self.openai_url = openai_url
        self.sessions = sessions
        self._sidecar_url = sidecar_url
        self._rest = rest
        self._headers = headers

    def send(self, requests: Sequence[Request]) -> list[httpx.Response]:
        """Send all of them at once; return the answers in their order."""
        with (
            httpx.Client(timeout=300, trust_env=False) as client,
            ThreadPoolExecutor(len(requests)) as pool,
        ):
            return list(
                pool.map(
                    lambda one: client.post(
                        f"{self.openai_url}{one.path}", json=one.body, headers=one.headers
                    ),
                    requests,
                )
            )

    def captures_of(self, request_id: str) -> list[dict[str, Any]]:
        """Return what REST tells of the captures under the id; nothing where it says 404."""
        answer = self._rest.get(f"/v1/requests/{quote(request_id, safe='')}", headers=self._headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        assert answer.status_code == httpx.codes.OK, answer.text
        found: list[dict[str, Any]] = answer.json()["captures"]
        return found

    def rows_of(self, request_id: str) -> list[int]:
        """Return how many rows each capture under the id has that were read, fewest first."""
        return sorted(len(one["explanations"]) for one in self.captures_of(request_id))

    def wait_for_rows(self, request_id: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Wait until the captures under the id have so many rows; return them."""
        wait_until(
            lambda: f"{list(rows)} rows of {request_id[:80]!r}, not {self.rows_of(request_id)}",
            lambda: self.rows_of(request_id) == sorted(rows),
            _STORE_SECONDS,
        )
        return self.captures_of(request_id)

    def wait_for(self, what: str, probe: Callable[[], object]) -> None:
        """Wait as long as storing may take until the probe is true."""
        wait_until(what, probe, _STORE_SECONDS)

    def flags_of(self, request_id: str) -> list[dict[str, Any]]:
        """Return the flags of all captures under the id."""
        return [flag for one in self.captures_of(request_id) for flag in one["flags"]]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the sidecar's samples of that name which carry the labels."""
        text = httpx.get(f"{self._sidecar_url}/metrics", timeout=30, trust_env=False).text
        return metric_in(text, name, **labels)

    def settled_metric(self, name: str, **labels: str) -> float:
        """Return the metric once no heartbeat changes it any more, so that earlier requests are in it."""
        values = [self.metric(name, **labels)]
        while len(values) < _SETTLED_READS or len(set(values[-_SETTLED_READS:])) > 1:
            time.sleep(1)
            values.append(self.metric(name, **labels))
        return values[-1]

    def is_capturing(self) -> bool:
        """Whether capture is on and no hook has failed."""
        is_on = self.metric("subtext_capture_enabled", model=MODEL, reason="ok") == 1.0
        return is_on and self.metric("subtext_capture_errors_total") == 0.0


def metric_in(exposition: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name which carry the labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def make_model(folder: Path, tokenizer_from: Path) -> Path:
    """Save a tiny Llama with the tokenizer and the chat template of another model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tiny.make_llama(folder, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def audited(
    folder: Path,
    model_dir: Path,
    database_url: str,
    redis_url: str,
    subtext: Mapping[str, Any] | None = None,
) -> Iterator[Audited]:
    """Run all parts, whose database is migrated, for the length of the block.

    ``subtext`` is what the plugin is told besides.
    """
    socket, openai, sidecar = f"ipc://{folder}/capture.sock", free_port(), free_port()
    openai_url, sidecar_url = (f"http://127.0.0.1:{port}" for port in (openai, sidecar))
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(_process(folder / "sidecar.log", _sidecar(socket, redis_url, sidecar))),
            stack.enter_context(
                _process(folder / "vllm.log", _vllm(folder, model_dir, socket, openai, subtext or {}))
            ),
        ]
        stack.enter_context(_worker(folder, database_url, redis_url))
        rest, headers, sessions = stack.enter_context(_rest(database_url))

        def is_ready() -> bool:
            assert all(one.poll() is None for one in servers), (folder / "vllm.log").read_text()[-4000:]
            return all(_answers(url) for url in (f"{openai_url}/health", f"{sidecar_url}/readyz"))

        wait_until("the server is ready", is_ready, _START_SECONDS)
        parts = Audited(openai_url, sidecar_url, rest, headers, sessions)
        wait_until("capture is on", parts.is_capturing)
        yield parts


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def _process(log: Path, started: tuple[list[str], dict[str, str]]) -> Iterator["subprocess.Popen[bytes]"]:
    command, env = started
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command], env=os.environ | _ENV | env, stdout=out, stderr=subprocess.STDOUT
        )
    yield process
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _sidecar(socket: str, redis_url: str, port: int) -> tuple[list[str], dict[str, str]]:
    env = {"SUBTEXT_SOCKET": socket, "SUBTEXT_REDIS_URL": redis_url, "SUBTEXT_HTTP_PORT": str(port)}
    return ["-m", "subtext_sidecar"], env


def _vllm(
    folder: Path, model_dir: Path, socket: str, port: int, changes: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    secret = write_secret(folder / "draw_secret")
    subtext = {"layer": LAYER, "socket": socket, "secret_file": str(secret), **POLICY, **changes}
    options = {
        "--model": str(model_dir),
        "--served-model-name": MODEL,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "float32",
        "--max-model-len": str(CONTEXT),
        "--max-num-seqs": "64",
        "--additional-config": json.dumps({"subtext": subtext}),
    }
    flags = [
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--enable-prompt-embeds",
        "--enable-scale-out",
    ]
    command = ["-m", "vllm.entrypoints.openai.api_server", *flags]
    return [*command, *(part for option in options.items() for part in option)], {}


@contextmanager
def _worker(folder: Path, database_url: str, redis_url: str) -> Iterator[None]:
    concepts = folder / "concepts.yaml"
    concepts.write_text(CONCEPTS)
    settings = WorkerSettings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        decoder_dir=folder,
        concepts_file=concepts,
        http_port=0,
    )
    stop = threading.Event()
    parts = wiring.build(settings, stop, version="test")
    identity = fake_identity(model=MODEL, layer=LAYER, d_model=tiny.SIZES["hidden_size"])
    loop = parts.connect(TokenDecoder(identity), None, embedder=WordEmbedder())
    assert loop is not None
    thread = threading.Thread(target=serving.serve, args=(parts, loop), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(60)
    parts.close()
    assert not thread.is_alive()


@contextmanager
def _rest(database_url: str) -> Iterator[tuple[TestClient, dict[str, str], sessionmaker[Session]]]:
    engine, secret = create_engine(database_url), auth.new_secret()
    sessions = session_factory(engine)
    with sessions.begin() as session:
        keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=["admin"])
    resources = Resources(engine=engine, sessions=sessions, metrics=Metrics(CollectorRegistry()))
    with TestClient(create_app(resources)) as client:
        yield client, {"X-API-Key": secret, "Subtext-Purpose": "debugging"}, sessions
    engine.dispose()
