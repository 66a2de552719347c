"""The boundary between vLLM and capture: wraps four methods of one worker instance.

1. ``load_model``: afterwards, ask the model for the residual stream at our layer. This is before
   profiling, compilation and graph capture, which therefore include it.
2. ``execute_model``: afterwards, the batch is in its final order: remember it.
3. ``sample_tokens``: afterwards, the sampler is launched: pick rows and gather them.
4. ``shutdown``: before it, send what is queued.

vLLM's own method always runs and its result is always returned. Whatever fails on our side turns
capture off, counts, logs and gives the worker its own step methods back; it never reaches serving.
"""

import atexit
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server

from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import VERSION
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import Ledger, new_source
from subtext_sidecar.local.policy import START_VERSION, PolicyUpdate, share
from subtext_sidecar.local.wire import CaptureStatus
from subtext_sidecar.plugin.capture import Capture
from subtext_sidecar.plugin.overhead import Overhead
from subtext_sidecar.plugin.secret import SecretError, read_key
from subtext_sidecar.plugin.settings import (
    SECRET_FILE,
    CaptureSettings,
    FaultPoint,
    SettingsError,
    parse_settings,
)
from subtext_sidecar.plugin.state import CaptureState
from subtext_sidecar.plugin.step import CaptureError, Runner
from subtext_sidecar.plugin.transfer.handover import Handover
from subtext_sidecar.plugin.transfer.ring import open_ring
from subtext_sidecar.plugin.transfer.sender import Sender
from subtext_sidecar.plugin.vllm.activation import CONFIG_KEY, LOGGER
from subtext_sidecar.plugin.vllm.engine import (
    context_length,
    engine_halves,
    engines_of,
    identify,
    is_emitting_rank,
    randomizes_request_ids,
    row_layout,
)
from subtext_sidecar.plugin.vllm.refusal import Refusal, refuse_config, refuse_model, refuse_runner
from subtext_sidecar.plugin.vllm.runner_v1 import RunnerV1
from subtext_sidecar.plugin.vllm.runner_v2 import RunnerV2

_STEP_METHODS: Final = ("execute_model", "sample_tokens")


def attach(worker: Any, vllm_config: Any) -> None:
    """Wrap the methods of a worker that is being created and whose configuration has our key."""
    state = CaptureState()
    settings = read_settings(vllm_config.additional_config[CONFIG_KEY], state)
    if settings is None:
        return
    hooks = WorkerHooks(worker, vllm_config, settings, state)
    worker.load_model = hooks.load_model
    worker.shutdown = hooks.shutdown


class WorkerHooks:
    """The hooks of one worker; holds its capture from load to shutdown."""

    def __init__(
        self, worker: Any, vllm_config: Any, settings: CaptureSettings, state: CaptureState
    ) -> None:
        self._worker = worker
        self._vllm_config = vllm_config
        self._settings = settings
        self._state = state
        self._identity = identify(vllm_config, settings)
        self._engines = engines_of(vllm_config, settings)
        self._load_model = worker.load_model
        self._execute_model = worker.execute_model
        self._sample_tokens = worker.sample_tokens
        self._shutdown = worker.shutdown
        self._ledger = Ledger(source=new_source(Hop.PLUGIN), hop=Hop.PLUGIN)
        self._handover: Handover = Handover()
        self._policy_version = START_VERSION
        self._capture: Capture | None = None
        self._sender: Sender | None = None

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        """Load, then set capture up."""
        result = self._load_model(*args, **kwargs)
        self._guarded("load_model", self._set_up)
        return result

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute, then remember the batch."""
        result = self._execute_model(scheduler_output, *args, **kwargs)
        try:
            if self._settings.fault is not None:
                self._raise_fault("execute_model")
            if self._capture is not None:
                self._capture.after_execute(scheduler_output, result)
        except Exception as error:  # noqa: BLE001  # boundary of the hook
            self._fail("execute_model", error)
        return result

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Sample, then pick rows and gather them."""
        result = self._sample_tokens(*args, **kwargs)
        try:
            if self._settings.fault is not None:
                self._raise_fault("sample_tokens")
            if self._capture is not None:
                self._capture.after_sample(result)
        except Exception as error:  # noqa: BLE001  # boundary of the hook
            self._fail("sample_tokens", error)
        return result

    def shutdown(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is queued, then shut down."""
        self._guarded("shutdown", self._close)
        return self._shutdown(*args, **kwargs)

    def _guarded(self, hook: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  # boundary of the hook: serving goes on, whatever this was
            self._fail(hook, error)

    def _fail(self, hook: str, error: Exception) -> None:
        """Turn capture off; also called from the sender's thread, without which rows would only pile up."""
        self._state.fail(hook, error)
        self._unhook_steps()

    def _set_up(self) -> None:
        is_emitting = is_emitting_rank()
        try:
            runner = self._enable()
            if is_emitting and runner is not None:
                self._start_capture(runner)
        finally:
            # Also when capture is off: the heartbeat tells why.
            if is_emitting:
                self._start_sending()
        if self._capture is not None:
            self._worker.execute_model = self.execute_model
            self._worker.sample_tokens = self.sample_tokens
            self._state.start()

    def _enable(self) -> Runner | None:
        """Ask the model for our layer, on every tensor-parallel rank so that their graphs stay alike."""
        self._raise_fault("load_model")
        if self._state.reason != "starting":
            return None
        runner = self._worker.model_runner
        refusal = (
            refuse_config(self._vllm_config, self._settings.layer)
            or refuse_model(runner.get_model())
            or refuse_runner(runner)
        )
        if refusal is not None:
            self._state.refuse(refusal)
            return None
        is_v2 = getattr(self._worker, "use_v2_model_runner", False)
        adapter: Runner = RunnerV2(runner) if is_v2 else RunnerV1(runner)
        # vLLM counts what enters a block: the output of block K enters block K + 1.
        adapter.enable(self._settings.layer + 1)
        logging.getLogger(LOGGER).info(
            "subtext: capturing layer %d of %s (runner %s, engines that share the budget: %d)",
            self._settings.layer,
            self._identity.model,
            adapter.name,
            self._engines,
        )
        return adapter

    def _start_capture(self, runner: Runner) -> None:
        """Allocate what capture needs, before vLLM measures what memory is left for its cache.

        Without the secret capture stays off. The model keeps its extra output all the same: the compile
        cache goes by the configuration, which is the same once the file is there.
        """
        try:
            key = read_key(Path(self._settings.secret_file), SECRET_FILE)
        except SecretError as error:
            self._state.refuse(Refusal("bad_secret", str(error)))
            return
        layout = row_layout(self._vllm_config, self._settings)
        self._capture = Capture(
            runner=runner,
            policy=share(self._settings.policy(), self._engines),
            model=self._identity.model,
            ledger=self._ledger,
            ring=open_ring(layout, self._worker.model_runner.device),
            handover=self._handover,
            context=context_length(self._vllm_config),
            key=key,
            halves=engine_halves(self._vllm_config, self._settings.split),
            randomized_ids=randomizes_request_ids(),
        )

    def _start_sending(self) -> None:
        settings = self._settings
        view = CaptureView()
        self._sender = Sender(
            socket_address=settings.socket,
            handover=self._handover,
            ledger=self._ledger,
            identity=self._identity,
            fail=self._fail,
            status=self._status,
            set_policy=self._set_policy,
            view=view,
        )
        self._sender.start()
        # A killed front end can end this process without the worker's own shutdown.
        atexit.register(self._sender.close)
        if settings.metrics_port:
            _serve_metrics(view, settings.metrics_port)

    def _set_policy(self, update: PolicyUpdate) -> None:
        """Follow the sidecar's policy; without one, that of the engine's own configuration."""
        if self._capture is not None:
            self._capture.set_policy(share(update.capture or self._settings.policy(), self._engines))
            self._policy_version = update.version
            logging.getLogger(LOGGER).info("subtext: policy %r is in force", update.version)

    def _close(self) -> None:
        if self._sender is not None:
            atexit.unregister(self._sender.close)
            self._sender.close()

    def _unhook_steps(self) -> None:
        """Give the worker its own methods back. The model keeps its extra output, which graphs contain."""
        for name in _STEP_METHODS:
            vars(self._worker).pop(name, None)

    def _raise_fault(self, point: FaultPoint) -> None:
        if self._settings.fault == point:
            raise CaptureError(f"fault injected in {point}")

    def _status(self) -> CaptureStatus:
        capture = self._capture
        return CaptureStatus(
            v=VERSION,
            source=self._ledger.source,
            model=self._identity.model,
            layer=self._identity.layer,
            enabled=self._state.enabled,
            reason=self._state.reason,
            detail=self._state.detail,
            policy_version=self._policy_version,
            sampling_probability=capture.request_rate if capture is not None else 0.0,
            errors=dict(self._state.errors),
            error_times=dict(self._state.error_times),
            overhead=(capture.overhead if capture is not None else Overhead()).read(),
        )


def read_settings(value: Any, state: CaptureState) -> CaptureSettings | None:
    """Return the settings; of unusable ones only the socket, so that the sidecar learns why it is off."""
    try:
        return parse_settings(value)
    except SettingsError as error:
        state.refuse(Refusal("bad_settings", str(error)))
    try:
        # The file is not read: capture stays off.
        return parse_settings({"layer": 0, "socket": value["socket"], "secret_file": "-"})
    except (SettingsError, TypeError, KeyError):
        return None


def _serve_metrics(view: CaptureView, port: int) -> None:
    registry = CollectorRegistry()
    registry.register(view)
    try:
        start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        # Another engine of this host has the port: the sidecar relays the same metrics.
        logging.getLogger(LOGGER).warning("subtext: no metrics on port %d: %s", port, error)
