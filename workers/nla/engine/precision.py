"""In which precision matrix products run: bfloat16 where the processor multiplies it natively."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

ProductType = Literal["auto", "float32", "bfloat16"]


def is_native(device: str) -> bool:
    """Tell whether a device multiplies bfloat16 natively; elsewhere it is slower than float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return bool(
        torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public name
        or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    )


def chooses_bfloat16(products: ProductType, device: str) -> bool:
    """Tell whether products run in bfloat16: as asked, or as the device is built."""
    return products == "bfloat16" or (products == "auto" and is_native(device))


def halve_products(model: Any) -> Any:
    """Keep the weights of a model's linear layers in bfloat16, everything between them in float32.

    The stream that the blocks add to keeps its digits; only products lose some. To be run in `autocast`.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return model


def autocast(device: str, *, is_halved: bool) -> AbstractContextManager[Any]:
    """Return a context in which matrix products run in bfloat16, or one that changes nothing."""
    import torch

    if not is_halved:
        return nullcontext()
    kind = device.partition(":")[0]
    return cast("AbstractContextManager[Any]", torch.autocast(kind, dtype=torch.bfloat16))
