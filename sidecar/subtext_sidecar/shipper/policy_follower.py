"""Follow the policy file: the screen's part at once, the plugin's part over the second socket."""

import logging

from subtext_sidecar.local.policy import START_VERSION, PolicyError, PolicyUpdate
from subtext_sidecar.local.policy_channel import PolicyPublisher
from subtext_sidecar.log import NAME
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.policy_file import PolicyFile


class PolicyFollower:
    """Reads and publishes again and again. A bad file changes nothing, and is counted and logged."""

    def __init__(
        self,
        *,
        file: PolicyFile | None,
        publisher: PolicyPublisher,
        screening: Screening,
        metrics: SidecarMetrics,
    ) -> None:
        self._file = file
        self._publisher = publisher
        self._screening = screening
        self._metrics = metrics
        self._log = logging.getLogger(NAME)
        # With a file nothing is said before it was read: a plugin keeps what it follows while a
        # sidecar that was restarted finds the file broken.
        self._update = PolicyUpdate(version=START_VERSION, capture=None) if file is None else None

    @property
    def version(self) -> str | None:
        """Version of the policy that plugins are told, None when they are told none."""
        return None if self._update is None else self._update.version

    def beat(self) -> None:
        """Read the file if it changed, then tell the plugins what holds."""
        try:
            self._read()
        except PolicyError as error:
            self._metrics.policy_errors.inc()
            self._log.error("policy_refused", extra={"fields": {"detail": str(error)}})  # our own message
        if self._update is not None:
            self._publisher.publish(self._update)

    def _read(self) -> None:
        loaded = None if self._file is None else self._file.poll()
        if loaded is None:
            return
        self._screening.set_policy(loaded.screen)
        self._update = PolicyUpdate(version=loaded.version, capture=loaded.capture)
        fields = {"version": loaded.version, "has_capture": loaded.capture is not None}
        self._log.info("policy_loaded", extra={"fields": fields})
