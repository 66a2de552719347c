"""`subtext worker`: wire the parts, watch them, and stop them in order."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import metadata

import structlog
from pydantic import ValidationError

from workers import log as logging
from workers.settings import WorkerSettings

log = structlog.get_logger()
_BAD_USE = 2


def worker(argv: list[str]) -> int:
    """Run one decode worker until SIGTERM; the second signal ends it at once."""
    parser = argparse.ArgumentParser(
        prog="subtext worker",
        description="Decode activations from the stream into the store. Settings: SUBTEXT_DATABASE_URL,"
        " SUBTEXT_REDIS_URL, SUBTEXT_DECODER_DIR, SUBTEXT_CONCEPTS_FILE; more in docs/operations.md.",
    )
    parser.parse_args(argv)
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        # Never the input: it may hold a password.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            sys.stderr.write(f"SUBTEXT_{str(problem['loc'][0]).upper()}: {problem['msg']}\n")
        return _BAD_USE
    logging.configure(settings.log_level)
    stop = threading.Event()
    _stop_on_signals(stop)
    from workers.judge.concepts import ConceptsError
    from workers.nla.errors import DecoderError

    try:
        return _run(settings, stop)
    except (DecoderError, ConceptsError, ValueError, OSError) as error:
        sys.stderr.write(f"subtext worker: {error}\n")
        return _BAD_USE


def _run(settings: WorkerSettings, stop: threading.Event) -> int:
    # Before vLLM is imported: it reads its environment once.
    from workers.nla.verbalizer import EngineSettings, prepare_environment

    prepare_environment()
    from workers import wiring
    from workers.nla.nla_decoder import NlaDecoder

    parts = wiring.build(settings, stop, version=metadata.version("subtext"))
    with contextlib.ExitStack() as stack:
        stack.callback(parts.close)
        decoder = NlaDecoder.open(settings.decoder_dir, EngineSettings())
        stack.callback(decoder.close)
        loop = parts.connect(decoder, decoder.calibration.anomaly if decoder.calibration else None)
        if loop is None:
            return 0  # told to stop while a store was away
        tasks = [
            SideTask("coverage", lambda: parts.intake.run(stop), stop),
            SideTask("gauges", lambda: parts.gauges.run(stop), stop),
        ]
        log.info("worker_ready", decoder=decoder.identity.name, calibrated=decoder.identity.is_calibrated)
        try:
            loop.run()
        finally:
            stop.set()
            for task in tasks:
                task.join(timeout=5)
    log.info("worker_stopped")
    return 1 if any(task.has_failed for task in tasks) else 0


class SideTask(threading.Thread):
    """A task whose death stops the process: a worker without gauges looks healthy and is not."""

    def __init__(self, name: str, act: Callable[[], None], stop: threading.Event) -> None:
        """Start at once."""
        super().__init__(name=name, daemon=True)
        self.has_failed = False
        self._act = act
        self._stop_all = stop
        self.start()

    def run(self) -> None:
        """Act to the end; whatever ends it ends the process."""
        try:
            self._act()
        except Exception:
            self.has_failed = True
            log.exception("task_died", task=self.name)
        finally:
            self._stop_all.set()


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(signum: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
