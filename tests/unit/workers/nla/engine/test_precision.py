"""Which precision matrix products run in."""

import pytest
import torch

from workers.nla.engine import precision


@pytest.mark.parametrize("is_native", [True, False])
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(
    *, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "is_native", lambda _: is_native)

    assert precision.chooses_bfloat16("auto", "cpu") is is_native
    assert precision.chooses_bfloat16("bfloat16", "cpu")
    assert not precision.chooses_bfloat16("float32", "cpu")


def test_only_products_are_halved() -> None:
    layers = [torch.nn.Embedding(7, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)]
    model = precision.halve_products(torch.nn.Sequential(*layers))

    embedding, norm, linear = model
    assert (embedding.weight.dtype, norm.weight.dtype) == (torch.float32, torch.float32)
    assert linear.weight.dtype == torch.bfloat16
    with precision.autocast("cpu", is_halved=True):
        assert model(torch.tensor([3])).shape == (1, 4)
