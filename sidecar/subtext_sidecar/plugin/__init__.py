"""The vLLM plugin: captures sampled activations inside the worker process, or does nothing at all.

vLLM calls ``register`` in each of its processes, configured for Subtext or not, so this module
must stay light and must not import torch or vLLM. Life of the plugin: ``activation`` finds the
configuration and names ``extension`` in it; ``models`` names stand-ins for model classes that
cannot be captured; the extension hooks one worker instance (``hooks``); ``capture`` chooses and
copies rows each step; ``sender`` ships them from its own thread.
"""

from subtext_sidecar.plugin.vllm.activation import activate
from subtext_sidecar.plugin.vllm.models import register_stand_ins


def register() -> None:
    """Entry point of ``vllm.general_plugins``: a no-op unless ``additional_config`` has our key."""
    if activate():
        register_stand_ins()
