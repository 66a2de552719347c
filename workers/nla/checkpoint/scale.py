"""Plausibility check of `injection_scale`.

A known mistake is a scale copied from another model, such as Qwen2.5 7B's 150 for Gemma 3 12B, whose
activations have norms near 80,000. The AV then writes fluent but unrelated text. Published pairs inject
between an eighth and twice their activations' norm, so a factor of 100 separates mistakes from choices.
"""

from workers.nla.checkpoint.meta import Meta
from workers.nla.errors import MetaError

_FACTOR = 100.0


def check_scale(meta: Meta, *, layer: int, typical_norm: float) -> None:
    """Raise MetaError when a numeric scale is far from the typical norm of the layer's activations.

    `raw` and `sqrt_d_model` are valid for every model.
    """
    scale = meta.extraction.injection_scale
    if not isinstance(scale, float) or typical_norm / _FACTOR <= scale <= typical_norm * _FACTOR:
        return
    raise MetaError(
        f"extraction.injection_scale: {scale:g}, while activations of layer {layer} have norms of about"
        f" {typical_norm:.3g}; this is the scale of another model, restore the nla_meta.yaml of this one"
    )
