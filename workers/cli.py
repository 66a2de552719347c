"""`subtext worker`: read the settings, wire the parts, and close them in order."""

import argparse
import contextlib
import os
import signal
import sys
import threading
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
    parser.add_argument("--decoder-dir", metavar="DIR", help="in place of SUBTEXT_DECODER_DIR")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        settings = WorkerSettings(**given)
    except ValidationError as error:
        # Never the input: it may hold a password.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = f"SUBTEXT_{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            sys.stderr.write(f"{name}{problem['msg'].removeprefix('Value error, ')}\n")
        return _BAD_USE
    logging.configure(settings.log_level)
    stop = threading.Event()
    stop_on_signals(stop)
    from workers.judge.concepts import ConceptsError
    from workers.nla.errors import DecoderError

    try:
        return _run(settings, stop)
    except (DecoderError, ConceptsError, ValueError, OSError) as error:
        sys.stderr.write(f"subtext worker: {error}\n")
        return _BAD_USE


def _run(settings: WorkerSettings, stop: threading.Event) -> int:
    # Before vLLM is imported: it reads its environment once.
    from workers.nla.engine.verbalizer import EngineSettings, prepare_environment

    prepare_environment()
    from subtext_sidecar.anomaly.reference import digest
    from workers.consumer import serving, wiring
    from workers.nla.calibration import ANOMALY
    from workers.nla.engine.nla_decoder import NlaDecoder

    parts = wiring.build(settings, stop, version=metadata.version("subtext"))
    with contextlib.ExitStack() as stack:
        stack.callback(parts.close)
        parts.check_stores()
        decoder = NlaDecoder.open(settings.decoder_dir, EngineSettings(candidates=settings.candidates))
        stack.callback(decoder.close)
        if decoder.anomaly is None:
            log.warning("no_anomaly_reference", file=str(settings.decoder_dir / ANOMALY))
        loop = parts.connect(decoder, decoder.anomaly)
        if loop is None:
            return 0  # told to stop while a store was away
        log.info(
            "worker_ready",
            decoder=decoder.identity.name,
            calibrated=decoder.identity.is_calibrated,
            anomaly_reference=decoder.anomaly and digest(decoder.anomaly),
        )
        return serving.serve(parts, loop)


def stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT end the process after its batch, and a second one at once."""

    def handle(signum: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + signum)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
