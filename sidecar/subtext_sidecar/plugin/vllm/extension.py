"""The class that vLLM mixes into its worker class: hooks each worker that is configured for it.

vLLM appends a worker extension to the bases of the worker class and instantiates that. A mixin
at the end of the bases cannot override methods, and need not: ``__new__`` is the one method that
no worker class defines, and it sees the new instance together with its configuration. It must
never raise.
"""

import logging
from typing import Any, Self

from subtext_sidecar.plugin.vllm.activation import LOGGER, is_configured
from subtext_sidecar.plugin.vllm.hooks import attach


class CaptureExtension:
    """Worker extension; name it in ``--worker-extension-cls`` where activation cannot see the config."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the worker, hooked when its configuration has our key and plain otherwise."""
        worker = super().__new__(cls)
        try:
            vllm_config = kwargs.get("vllm_config", args[0] if args else None)
            if is_configured(getattr(vllm_config, "additional_config", None)):
                attach(worker, vllm_config)
        except Exception:
            logging.getLogger(LOGGER).exception("subtext could not attach; serving goes on without capture")
        return worker
