"""`subtext log`: make a key, or write the log until SIGTERM."""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy.exc import SQLAlchemyError

from service import log as logging
from service.evidence.folder import FolderError
from service.evidence.note import NoteError, generate
from service.sequencer.metrics import LogMetrics
from service.sequencer.sequencer import NotAnExtensionError, Sequencer
from service.settings import LogSettings, SettingsError, log_settings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory
from service.store.evidence import tree
from service.store.evidence.tree import DamagedLogError

log = structlog.get_logger(__name__)
_BAD_USE: Final = 2
_REFUSED: Final = 1
_LOOK_EVERY_SECONDS: Final = 0.5
_MEASURE_EVERY_SECONDS: Final = 1.0
_NOT_SIGNED: Final = (NotAnExtensionError, DamagedLogError, FolderError, NoteError)
"""What no further try mends."""


def run(argv: list[str]) -> int:
    """Run the chosen action and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="subtext log",
        description="Give the evidence log's entries their places and sign the tree. Settings:"
        " SUBTEXT_DATABASE_URL, SUBTEXT_CHECKPOINT_FOLDER, SUBTEXT_LOG_KEY_FILE,"
        " SUBTEXT_CHECKPOINT_EVERY_SECONDS, SUBTEXT_HTTP_HOST, SUBTEXT_HTTP_PORT, SUBTEXT_PLAIN_HTTP,"
        " SUBTEXT_LOG_LEVEL.",
    )
    actions = parser.add_subparsers(dest="action")
    keygen = actions.add_parser("keygen", help="make a key; its public half is printed")
    keygen.add_argument("file", type=Path, help="where to write the private key; must not be there yet")
    keygen.add_argument("--name", default="subtext", help="of the log; default: %(default)s")
    options = parser.parse_args(argv)
    if options.action == "keygen":
        return _keygen(options.file, options.name)
    try:
        settings = log_settings()
    except SettingsError as error:
        sys.stderr.write(f"subtext log: {error}\n")
        return _BAD_USE
    return _serve(settings)


def _keygen(file: Path, name: str) -> int:
    try:
        signer = generate(name)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (NoteError, OSError) as error:
        sys.stderr.write(f"subtext log keygen: {error}\n")
        return _BAD_USE
    with os.fdopen(descriptor, "w") as opened:
        opened.write(signer.encode() + "\n")
    sys.stdout.write(signer.verifier.encode() + "\n")
    return 0


def _serve(settings: LogSettings) -> int:
    logging.configure(settings.log_level)
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda _signal, _frame: stop.set())
    engine = create_engine(settings.database, pool_size=1, application_name="subtext-log")
    registry = CollectorRegistry()
    metrics = LogMetrics(registry)
    server, _ = start_http_server(settings.http_port, settings.http_host, registry)
    writer = Writer(
        Sequencer(session_factory(engine), settings.signer, settings.checkpoint_folder),
        metrics,
        settings,
        stop,
    )
    try:
        writer.run()
    except (*_NOT_SIGNED, UnusableDatabaseError) as error:
        log.critical("log_refused", error=str(error))
        return _REFUSED
    finally:
        server.shutdown()
        server.server_close()
        engine.dispose()
    return 0


class Writer:
    """The loop around the sequencer; waits out a database that is away."""

    def __init__(
        self, sequencer: Sequencer, metrics: LogMetrics, settings: LogSettings, stop: threading.Event
    ) -> None:
        self._sequencer = sequencer
        self._metrics = metrics
        self._every = settings.checkpoint_every_seconds
        self._stop = stop
        self._is_checked = False
        self._signed_at = float("-inf")
        self._measured_at = float("-inf")

    def run(self) -> None:
        """Write until told to stop. Raises what no further try mends."""
        while not self._stop.is_set():
            try:
                more = self.step()
            except SQLAlchemyError as error:
                self._metrics.failures.inc()
                log.warning("store_away", error=type(error).__name__)
                more = False
            if not more:
                self._stop.wait(min(_LOOK_EVERY_SECONDS, self._every))

    def step(self) -> bool:
        """Look once; return whether more may wait."""
        if not self._is_checked:
            self._sequencer.check()
            self._is_checked = True
        done = self._sequencer.sequence()
        self._metrics.entries.inc(done.entries)
        self._metrics.repeated.inc(done.repeated)
        now = time.monotonic()
        if now - self._signed_at >= self._every:
            self._metrics.checkpoints.inc(self._sequencer.sign())
            self._signed_at = now
        if now - self._measured_at >= _MEASURE_EVERY_SECONDS:
            self._metrics.note_look(self._sequencer.count_pending(), self._sequencer.unsigned_age())
            self._measured_at = now
        return done.batches == tree.BATCHES_AT_ONCE
