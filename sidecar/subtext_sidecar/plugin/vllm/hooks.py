"""The boundary between vLLM and capture: wraps four methods of one worker instance.

1. ``load_model``: afterwards, ask the model for the residual stream at our layer. This is before
   profiling, compilation and graph capture, which therefore include it.
2. ``execute_model``: afterwards, the batch is in its final order: remember it.
3. ``sample_tokens``: afterwards, the sampler is launched: pick rows and gather them.
4. ``shutdown``: before it, send what is queued.

vLLM's own method always runs and its result is always returned. Whatever fails on our side turns
capture off, counts and logs; it never reaches serving.

After an error in a step or in the sender's thread a breaker says when capture begins anew. Until then
``sample_tokens`` is vLLM's own, and ``execute_model`` looks at the clock and counts who comes; an engine
that writes answers to prompts of others remembers as well whose prompts come, in both methods. Where
loading fails, or this counting, the cause is no request and would stay: the worker gets its own step
methods back until vLLM restarts.
"""

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server

from subtext_sidecar.contract.configuration import Configuration, Kind, configuration
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import VERSION
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import Ledger, new_source
from subtext_sidecar.local.policy import START_VERSION, CapturePolicy, PolicyUpdate, share
from subtext_sidecar.local.wire import CaptureStatus
from subtext_sidecar.plugin.breaker import Breaker
from subtext_sidecar.plugin.capture import Capture
from subtext_sidecar.plugin.configuration import Followed, followed
from subtext_sidecar.plugin.overhead import Overhead
from subtext_sidecar.plugin.sampling.canary import CanaryGate
from subtext_sidecar.plugin.sampling.gap import Gap
from subtext_sidecar.plugin.sampling.memory import Memory
from subtext_sidecar.plugin.secret import SecretError, read_keys, subject_reader
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
    program_versions,
    randomizes_request_ids,
    row_layout,
)
from subtext_sidecar.plugin.vllm.model_revision import describe_model
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
        self,
        worker: Any,
        vllm_config: Any,
        settings: CaptureSettings,
        state: CaptureState,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``clock`` is what the breaker goes by, in seconds."""
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
        self._whole_policy = settings.policy()  # of all engines together
        self._policy = share(self._whole_policy, self._engines)
        self._policy_version = START_VERSION
        self._model: Configuration | None = None  # its revision; None: not looked at, or not to be told
        self._versions: dict[str, str | None] = {}  # of the programs
        self._followed: Followed | None = None
        self._clock = clock
        self._lock = threading.Lock()  # of the breaker and of which step methods the worker has
        self._breaker = Breaker()
        self._fault_use = 0
        self._overhead = Overhead()
        self._begin: Callable[..., Capture] | None = None
        self._capture: Capture | None = None  # while off, the one that was given up or is about to be
        self._gap: Gap | None = None
        self._is_receiving = False  # prompts that another engine computed
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
            self._interrupt("execute_model", error, scheduler_output, result)
        return result

    def execute_model_while_off(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute, then begin anew if it is time, and else count who comes."""
        result = self._execute_model(scheduler_output, *args, **kwargs)
        try:
            if self._clock() >= self._breaker.due:
                self._resume(scheduler_output, result)
            elif (
                scheduler_output.scheduled_new_reqs
                or scheduler_output.finished_req_ids
                or self._gap is None
                or self._is_receiving
            ):
                self._pass_by(scheduler_output, result, hook="execute_model")
        except Exception as error:  # noqa: BLE001  # boundary of the hook
            self._interrupt("execute_model", error, scheduler_output, result)
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
            self._interrupt("sample_tokens", error, result=result)
        return result

    def sample_tokens_while_off(self, *args: Any, **kwargs: Any) -> Any:
        """Sample, then remember whose prompts came."""
        result = self._sample_tokens(*args, **kwargs)
        self._pass_by(None, result, hook="sample_tokens")
        return result

    def shutdown(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is queued, then shut down."""
        self._guarded("shutdown", self._close)
        return self._shutdown(*args, **kwargs)

    def _guarded(self, hook: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  # boundary of the hook: serving goes on, whatever this was
            self._give_up(hook, error)

    def _give_up(self, hook: str, error: Exception) -> None:
        """Turn capture off until vLLM restarts."""
        with self._lock:
            self._state.fail(hook, error)
            self._hook_steps()
        with contextlib.suppress(Exception):  # as in _interrupt
            self._state.report(hook, error)

    def _fail(self, hook: str, error: Exception) -> None:
        """Turn capture off for a while; also called from the sender's thread."""
        with self._lock:
            pause = self._breaker.trip(self._clock())
            self._hook_steps()
            is_news = self._state.fail(hook, error, pause)
        if is_news:
            self._state.report(hook, error, pause)

    def _interrupt(self, hook: str, error: Exception, scheduled: Any = None, result: Any = None) -> None:
        """Turn capture off for a while after an error on the engine's thread, in this step."""
        # Telling of the error can fail as well: in a filter of the operator's logging, in the error's text.
        with contextlib.suppress(Exception):
            self._fail(hook, error)
        self._pass_by(scheduled, result)

    def _pass_by(self, scheduled: Any, result: Any, *, hook: str | None = None) -> None:
        """Give up what was begun, unless that is done, and count who comes in this step.

        ``result`` is what vLLM's method returned. An error in reading it is counted as one of ``hook``, or
        without one not at all.
        """
        try:
            if self._capture is not None:
                self._note_received(self._capture, result, hook)
                self._gap = self._gap or self._capture.abandon()
            if self._gap is not None and scheduled is not None:
                self._gap.note(scheduled)
        except Exception as error:  # noqa: BLE001  # boundary of the hook: this code would fail in every step
            self._give_up("execute_model", error)

    def _note_received(self, capture: Capture, result: Any, hook: str | None) -> None:
        """Remember whose prompts came. What cannot be read is forgotten, and no reason to end capture."""
        try:
            capture.note_received(result)
        except Exception as error:  # noqa: BLE001  # boundary of the hook: another step's may be readable
            if hook is not None:
                with contextlib.suppress(Exception):  # as in _interrupt
                    self._fail(hook, error)

    def _resume(self, scheduled: Any, result: Any) -> None:
        """Begin anew with this step: with another capture, in the memory of the one before."""
        before, begin = self._capture, self._begin
        if before is None or begin is None:
            return
        self._gap = gap = self._gap or before.abandon()
        if not before.ring.is_empty:
            raise CaptureError("rows of before the error are not sent yet, so their memory cannot be used")
        capture = begin(
            policy=self._policy,
            configuration=self._digest,
            ring=before.ring.renewed(),
            known=gap.known,
        )
        with self._lock:
            # The sender may have failed since the clock was looked at: then this is no time to begin.
            is_due = self._breaker.is_due(self._clock())
            if is_due:
                self._capture = capture
                # The sender may have brought another meanwhile.
                capture.set_policy(self._policy, self._digest)
                self._breaker.close()
                self._state.resume()
                self._hook_steps()
        if not is_due:
            self._pass_by(scheduled, result)
            return
        self._gap = None
        capture.after_execute(scheduled, result)

    def _set_up(self) -> None:
        is_emitting = is_emitting_rank()
        if is_emitting:
            self._look_at_model()
        try:
            runner = self._enable()
            if is_emitting and runner is not None:
                self._start_capture(runner)
        finally:
            # Also when capture is off: the heartbeat tells why.
            if is_emitting:
                self._start_sending()
        if self._capture is not None:
            with self._lock:
                self._state.start()
                self._hook_steps()

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
            keys = read_keys(Path(self._settings.secret_file), SECRET_FILE)
            subjects = subject_reader(self._settings)
        except SecretError as error:
            self._state.refuse(Refusal("bad_secret", str(error)))
            return
        layout = row_layout(self._vllm_config, self._settings)
        halves = engine_halves(self._vllm_config, self._settings.split)
        self._is_receiving = halves.writes_answers
        self._begin = partial(
            Capture,
            runner=runner,
            model=self._identity.model,
            tenant=self._identity.tenant,
            ledger=self._ledger,
            handover=self._handover,
            context=context_length(self._vllm_config),
            key=keys.draw,
            halves=halves,
            randomized_ids=randomizes_request_ids(),
            canaries=CanaryGate(keys.canary, self._identity.model),
            subjects=subjects,
            overhead=self._overhead,
            memory=Memory(),
        )
        self._capture = self._begin(
            policy=self._policy,
            configuration=self._digest,
            ring=open_ring(layout, self._worker.model_runner.device),
        )

    def _look_at_model(self) -> None:
        """Learn what is told of the model. Capture goes on without, if that fails."""
        try:
            self._versions = program_versions()
            self._model = configuration(Kind.MODEL, describe_model(self._vllm_config))
        except Exception as error:  # noqa: BLE001  # capture does not depend on it
            self._tell_nothing(error)
        self._follow()

    def _tell_nothing(self, error: Exception) -> None:
        """Log the error, and tell no configuration any more. All else goes on."""
        self._model = None
        with contextlib.suppress(Exception):  # as in _interrupt
            text = "subtext: what this engine runs cannot be told"
            logging.getLogger(LOGGER).error(text, exc_info=error)

    def _follow(self) -> None:
        """Work out what this engine runs now, where the model is known."""
        self._followed = self._describe(self._whole_policy)

    def _describe(self, policy: CapturePolicy | None) -> Followed | None:
        """Return what an engine runs that follows this policy; None where that is not told."""
        if self._model is None:
            return None
        try:
            return followed(self._model, self._settings, self._versions, policy, self._engines)
        except Exception as error:  # noqa: BLE001  # the sender's thread and a new policy must not fail by it
            self._tell_nothing(error)
            return None

    @property
    def _digest(self) -> str | None:
        """Of what this engine runs, which rows name."""
        return None if self._followed is None else self._followed.digest

    def _running(self) -> Followed | None:
        """Return what to tell: no policy is in force at an engine that captures nothing any more."""
        is_off_for_good = self._capture is None or self._state.is_final
        return self._describe(None) if is_off_for_good else self._followed

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
            with self._lock:
                self._whole_policy = update.capture or self._settings.policy()
                self._share_policy()
                self._policy_version = update.version
            logging.getLogger(LOGGER).info("subtext: policy %r is in force", update.version)

    def _share_policy(self) -> None:
        """Decide by this engine's part of the policy. The lock is held."""
        self._policy = share(self._whole_policy, self._engines)
        self._follow()
        if self._capture is not None:
            self._capture.set_policy(self._policy, self._digest)

    def _follow_engines(self) -> None:
        """Take another part of the budget when elastic scaling has changed the number of ranks."""
        engines = engines_of(self._vllm_config, self._settings)
        if engines != self._engines:
            with self._lock:
                self._engines = engines
                self._share_policy()
            logging.getLogger(LOGGER).info("subtext: %d engines share the budget now", engines)

    def _close(self) -> None:
        if self._sender is not None:
            atexit.unregister(self._sender.close)
            self._sender.close()

    def _hook_steps(self) -> None:
        """Give the worker the step methods of now. The model keeps its extra output, which graphs contain.

        Off, ``sample_tokens`` is vLLM's own where no prompts are received, and off for good both are. The
        lock is held.
        """
        worker = self._worker
        if self._capture is None or self._state.is_final:
            for name in _STEP_METHODS:
                vars(worker).pop(name, None)
        elif self._breaker.is_open:
            worker.execute_model = self.execute_model_while_off
            if self._is_receiving:
                worker.sample_tokens = self.sample_tokens_while_off
            else:
                vars(worker).pop("sample_tokens", None)
        else:
            worker.execute_model = self.execute_model
            worker.sample_tokens = self.sample_tokens

    def _raise_fault(self, point: FaultPoint) -> None:
        if self._settings.fault != point:
            return
        use, self._fault_use = self._fault_use, self._fault_use + 1
        first, stop = self._settings.fault_uses or (use, use + 1)
        if first <= use < stop:
            raise CaptureError(f"fault injected in {point}")

    def _status(self) -> CaptureStatus:
        self._raise_fault("sender")
        self._follow_engines()
        capture = self._capture
        # The next step is captured again, and no request has come since that was due.
        is_due = self._breaker.is_due(self._clock()) and not self._state.is_final
        running = self._running()
        return CaptureStatus(
            v=VERSION,
            source=self._ledger.source,
            model=self._identity.model,
            layer=self._identity.layer,
            tenant=self._identity.tenant,
            enabled=is_due or self._state.enabled,
            reason="ok" if is_due else self._state.reason,
            detail="" if is_due else self._state.detail,
            policy_version=self._policy_version,
            sampling_probability=capture.request_rate if capture is not None else 0.0,
            errors=dict(self._state.errors),
            error_times=dict(self._state.error_times),
            overhead=self._overhead.read(),
            configurations=() if running is None else running.reports,
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
