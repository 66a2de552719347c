"""Precision of matrix products: bfloat16 where the processor supports it natively."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

ProductType = Literal["auto", "float32", "bfloat16"]


def is_native(device: str) -> bool:
    """Return whether the device multiplies bfloat16 natively; emulation is slower than float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return bool(
        torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public name
        or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    )


def chooses_bfloat16(products: ProductType, device: str) -> bool:
    """Return whether products run in bfloat16; "auto" follows the device."""
    return products == "bfloat16" or (products == "auto" and is_native(device))


def halve_products(model: Any) -> Any:
    """Convert the weights of a model's linear layers to bfloat16, in place, and return the model.

    The residual stream stays in float32, so only products lose precision. Run the model in `autocast`.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return model


def autocast(device: str, *, is_halved: bool) -> AbstractContextManager[Any]:
    """Return a context in which matrix products run in bfloat16 if `is_halved`, else a null context."""
    import torch

    if not is_halved:
        return nullcontext()
    kind = device.partition(":")[0]
    return cast("AbstractContextManager[Any]", torch.autocast(kind, dtype=torch.bfloat16))
