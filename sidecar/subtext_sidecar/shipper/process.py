"""Wire the sidecar's parts together and run its loop until a signal."""

import logging
import signal
import threading
import time
from contextlib import closing
from types import FrameType
from typing import Final

from prometheus_client import CollectorRegistry
from redis import RedisError

from subtext_sidecar import log
from subtext_sidecar.anomaly.reference import AnomalyError, digest, load_reference
from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.listening import ListeningError
from subtext_sidecar.local.capture_view import Beginning, CaptureView
from subtext_sidecar.local.ledger import Ledger, new_source
from subtext_sidecar.local.policy import PolicyError, ScreenPolicy
from subtext_sidecar.local.policy_channel import PolicyPublisher
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.buffer import Buffer
from subtext_sidecar.shipper.health import Health, HealthServer
from subtext_sidecar.shipper.loop import Sidecar
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.policy_file import PolicyFile
from subtext_sidecar.shipper.policy_follower import PolicyFollower
from subtext_sidecar.shipper.queue import RedisStream, UnusableQueueError
from subtext_sidecar.shipper.receiver import Receiver
from subtext_sidecar.shipper.settings import SidecarSettings

_STEP_SECONDS: Final = 0.1
_DRAIN_SECONDS: Final = 5.0


def run(settings: SidecarSettings) -> int:
    """Run until SIGTERM or SIGINT and drain; a second signal ends at once.

    Returns 0, or 2 when the screen's reference, the TLS files or Redis cannot be used.
    """
    log.configure(settings.log_level)
    logger = logging.getLogger(log.NAME)
    try:
        screening = _screening(settings)
        if settings.tls is not None:
            settings.tls.context()
    except (AnomalyError, PolicyError, ListeningError) as error:
        logger.error("sidecar_refused", extra={"fields": {"detail": str(error)}})  # noqa: TRY400  # our own message
        return 2
    stop = _stop_on_signals()
    registry = CollectorRegistry()
    began = Beginning(now=time.monotonic(), unix_seconds=time.time())
    view, health = CaptureView(began), Health()
    registry.register(view)
    metrics = SidecarMetrics(registry)
    with (
        HealthServer(settings.http_host, settings.http_port, health, registry, settings.tls) as server,
        Receiver(settings.socket) as receiver,
        PolicyPublisher(receiver.context, settings.socket) as publisher,
        closing(_stream(settings)) as stream,
    ):
        sidecar = Sidecar(
            receiver=receiver,
            stream=stream,
            buffer=Buffer(settings.buffer_bytes),
            ledger=Ledger(source=new_source(Hop.SIDECAR), hop=Hop.SIDECAR),
            screening=screening,
            policies=PolicyFollower(
                file=None if settings.policy_file is None else PolicyFile(settings.policy_file),
                publisher=publisher,
                screening=screening,
                metrics=metrics,
            ),
            view=view,
            metrics=metrics,
            health=health,
        )
        try:
            stream.check_server()
        except UnusableQueueError as error:
            logger.error("sidecar_refused", extra={"fields": {"detail": str(error)}})  # noqa: TRY400  # our own message
            return 2
        except RedisError as error:
            logger.warning("redis_away", extra={"fields": {"error": f"{type(error).__name__}: {error}"}})
        fields = {
            "socket": settings.socket,
            "http_port": server.port,
            "is_screening": screening.reference is not None,
            "anomaly_reference": screening.reference and digest(screening.reference),
        }
        logger.info("sidecar_started", extra={"fields": fields})
        while not stop.is_set():
            sidecar.step(_STEP_SECONDS)
        sidecar.drain(_DRAIN_SECONDS)
    logger.info("sidecar_stopped")
    return 0


def _stream(settings: SidecarSettings) -> RedisStream:
    return RedisStream(
        settings.redis_url, max_stream_bytes=settings.max_stream_bytes, password=settings.redis_password
    )


def _screening(settings: SidecarSettings) -> Screening:
    detector = None if settings.screen_file is None else Detector(load_reference(settings.screen_file))
    return Screening(detector, ScreenPolicy(), time.monotonic())


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop
