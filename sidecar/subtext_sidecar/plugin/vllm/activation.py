"""Turn the plugin on for the configuration that is being loaded, and only for that one.

vLLM calls general plugins without arguments, before anything public holds the configuration, and
at most once in a process. All three callers that matter have it in their own frame, so that is
where it is read (docs/decisions/0002-plugin-activation.md tells what was rejected, and why). What
is changed is one field of the user's own configuration object, ``worker_extension_cls``, which is
vLLM's public way to bring code into a worker. No attribute of vLLM is touched.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

CONFIG_KEY: Final = "subtext"
EXTENSION: Final = "subtext_sidecar.plugin.vllm.extension.CaptureExtension"
# A child of vLLM's own logger, so that its handler and format apply.
LOGGER: Final = "vllm.plugins.subtext"

_MAX_FRAMES: Final = 12  # register, activate, load_general_plugins, the caller, and room to spare


def activate() -> bool:
    """Name our worker extension in the caller's configuration if it has our key.

    Returns whether it did. Never raises: a failed activation leaves serving alone.
    """
    try:
        return any(_name_extension(holder) for holder in _holders(inspect.currentframe()))
    except Exception:
        logging.getLogger(LOGGER).exception(
            "subtext could not be activated; serving goes on without capture"
        )
        return False


def is_configured(additional_config: object) -> bool:
    """Tell whether ``additional_config`` carries our key."""
    return isinstance(additional_config, Mapping) and CONFIG_KEY in additional_config


def _holders(frame: FrameType | None) -> Iterator[Any]:
    """Yield the objects on the stack that hold ``worker_extension_cls``, if they have our key.

    ``self`` of EngineArgs.__post_init__ (front end), or ``vllm_config`` of EngineCore.__init__
    (spawned engine) and of WorkerWrapperBase.init_worker (spawned or remote worker).
    """
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return
        vllm_config = frame.f_locals.get("vllm_config")
        if is_configured(getattr(vllm_config, "additional_config", None)):
            yield vllm_config.parallel_config  # type: ignore[union-attr]  # it has our key: it is a VllmConfig
            return
        engine_args = frame.f_locals.get("self")
        # Read statically: vLLM's WorkerWrapperBase delegates every missing attribute to a worker that
        # it does not have yet, without end.
        if is_configured(inspect.getattr_static(engine_args, "additional_config", None)) and hasattr(
            engine_args, "worker_extension_cls"
        ):
            yield engine_args
            return
        frame = frame.f_back


def _name_extension(holder: Any) -> bool:
    taken = holder.worker_extension_cls
    if not taken:
        holder.worker_extension_cls = EXTENSION
    elif taken != EXTENSION:
        logging.getLogger(LOGGER).warning(
            "worker_extension_cls is already %s; subtext captures only if that class inherits from %s",
            taken,
            EXTENSION,
        )
    return True
