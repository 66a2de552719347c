"""Whether `injection_scale` can be the one of this model.

The documented mistake is a scale copied from another model: 150 of Qwen2.5 7B in a Gemma 3 12B, whose
activations are 80,000 long. The AV then writes fluent text about nothing. Pairs in use inject between an
eighth and twice their activations' norm, so a factor of 100 tells a mistake from a choice.
"""

from workers.nla.checkpoint.meta import Meta
from workers.nla.errors import MetaError

_FACTOR = 100.0


def check_scale(meta: Meta, *, layer: int, typical_norm: float) -> None:
    """Refuse a number of an AV that is far from the norms of its layer's activations.

    The words `raw` and `sqrt_d_model` are right for any model that was trained with them.
    """
    scale = meta.extraction.injection_scale
    if not isinstance(scale, float) or typical_norm / _FACTOR <= scale <= typical_norm * _FACTOR:
        return
    raise MetaError(
        f"extraction.injection_scale: {scale:g}, while activations of layer {layer} have norms of about"
        f" {typical_norm:.3g}; this is the scale of another model, restore the nla_meta.yaml of this one"
    )
