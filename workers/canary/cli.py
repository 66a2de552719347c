"""`subtext canary`: read the settings, send canaries until SIGTERM, serve what they show."""

import argparse
import contextlib
import json
import sys
import threading
import time

import structlog
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from service.store import engine as store_engine
from workers import log as logging
from workers.canary import prompts
from workers.canary.endpoint import OpenAiEndpoint
from workers.canary.metrics import CanaryMetrics
from workers.canary.record import RunRecorder
from workers.canary.runner import Result, Runner, SqlStore, longest_seconds
from workers.canary.settings import CanarySettings
from workers.canary.tokenizer import ChatTokenizer, TokenizerError
from workers.cli import stop_on_signals
from workers.consumer.health import HealthServer

log = structlog.get_logger()
_BAD_USE = 2


def canary(argv: list[str]) -> int:
    """Run until SIGTERM, or once through the file."""
    parser = argparse.ArgumentParser(
        prog="subtext canary",
        description="Send control prompts through the audited server and see whether the audit tells of"
        " them. Settings: SUBTEXT_CANARY_URL, SUBTEXT_CANARIES_FILE, SUBTEXT_SECRET_FILE,"
        " SUBTEXT_CANARY_TOKENIZER_DIR, SUBTEXT_SERVED_MODEL, SUBTEXT_DATABASE_URL; more in"
        " docs/operations.md.",
    )
    parser.add_argument("--once", action="store_true", help="every prompt once, a line of JSON each")
    options = parser.parse_args(argv)
    try:
        settings = CanarySettings()
        concepts = prompts.load(settings.canaries_file)
        tokenize = ChatTokenizer(settings.canary_tokenizer_dir)
    except ValidationError as error:
        # Never the input: it may hold a password.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = f"SUBTEXT_{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            sys.stderr.write(f"{name}{problem['msg'].removeprefix('Value error, ')}\n")
        return _BAD_USE
    except (prompts.CanariesError, TokenizerError) as error:
        sys.stderr.write(f"subtext canary: {error}\n")
        return _BAD_USE
    logging.configure(settings.log_level)
    stop = threading.Event()
    stop_on_signals(stop)
    with contextlib.ExitStack() as stack:
        return _run(settings, concepts, tokenize, stop, stack, once=options.once)


def _run(
    settings: CanarySettings,
    concepts: list[prompts.ConceptCanaries],
    tokenize: ChatTokenizer,
    stop: threading.Event,
    stack: contextlib.ExitStack,
    *,
    once: bool,
) -> int:
    database = store_engine.create_engine(settings.database, application_name="subtext-canary")
    stack.callback(database.dispose)
    endpoint = OpenAiEndpoint(
        str(settings.canary_url),
        settings.served_model,
        answer_tokens=settings.canary_answer_tokens,
        api_key=settings.api_key,
    )
    registry = CollectorRegistry()
    metrics = CanaryMetrics(
        registry,
        settings.served_model,
        concepts,
        settings.canary_window,
        longest_seconds=longest_seconds(settings.canary_interval_seconds, settings.canary_deadline_seconds),
        started=time.time(),
    )
    sessions = store_engine.session_factory(database)
    recorder = RunRecorder(sessions, settings.served_model, stop, settings.tenant)

    def observe(canary: prompts.Canary, result: Result, now: float) -> None:
        metrics.add(canary, result, now)
        recorder.add(canary, result)

    runner = Runner(
        endpoint=endpoint,
        store=SqlStore(sessions, settings.served_model, settings.tenant),
        tokenize=tokenize,
        key=settings.key,
        model=settings.served_model,
        deadline_seconds=settings.canary_deadline_seconds,
        interval_seconds=settings.canary_interval_seconds,
        stop=stop,
        observe=observe,
    )
    if once:
        return _once(runner, prompts.prompts_of(concepts), stop)
    health = HealthServer(
        settings.http_host,
        settings.http_port,
        registry,
        {"postgres": lambda: store_engine.ping(database)},
        tls=settings.tls,
    )
    stack.callback(health.close)
    runner.run(prompts.prompts_of(concepts))
    return 0


def _once(runner: Runner, listed: list[prompts.Canary], stop: threading.Event) -> int:
    """Send every prompt; 1 when one was lost."""
    lost = 0
    for one in listed:
        if stop.is_set():
            break
        result = runner.run_one(one)
        lost += result.outcome == "lost"
        sys.stdout.write(json.dumps({"concept": one.concept, "kind": one.kind, **result._asdict()}) + "\n")
        sys.stdout.flush()
        # No faster than an engine lets canaries in.
        stop.wait(60.0 / 8)
    return 1 if lost else 0
