import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM

from tests.support.nla import toy
from workers.nla.calibration import ANOMALY
from workers.nla.checkpoint.assemble import assemble, pair_digest
from workers.nla.checkpoint.digest import digest_pair
from workers.nla.checkpoint.pair import load_pair
from workers.nla.errors import MetaError


@pytest.fixture(scope="module")
def base(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_base(tmp_path_factory.mktemp("base"), model_dir)


@pytest.fixture
def shipped(base: Path, tmp_path: Path) -> Path:
    return toy.write_shipped(tmp_path / "shipped", base)


def test_the_assembled_pair_holds_base_plus_scaled_adapters(
    base: Path, shipped: Path, tmp_path: Path
) -> None:
    target = assemble(shipped, base, tmp_path / "decoder")

    adapters = load_file(shipped / "av" / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.2.mlp.down_proj"
    a, b = (adapters[f"{prefix}.lora_{side}.weight"].float() for side in "AB")
    name = "model.layers.2.mlp.down_proj.weight"
    own = AutoModelForCausalLM.from_pretrained(base).state_dict()[name]
    merged = AutoModelForCausalLM.from_pretrained(target / "av").state_dict()[name]
    assert merged.dtype == torch.float32
    # lora_alpha 4 over rank 2
    assert torch.allclose(merged, own + 2 * (b @ a), atol=1e-5)
    assert not torch.allclose(merged, own, atol=1e-2)


def test_the_assembled_reconstructor_is_truncated_and_has_its_head(
    base: Path, shipped: Path, tmp_path: Path
) -> None:
    target = assemble(shipped, base, tmp_path / "decoder")

    pair = load_pair(target / "av", target / "ar")
    assert (pair.layer, pair.ar.shape.num_layers) == (toy.LAYER, toy.LAYER + 1)
    assert len(AutoModel.from_pretrained(target / "ar").layers) == toy.LAYER + 1
    assert load_file(target / "ar" / "value_head.safetensors")["weight"].shape == (64, 64)
    assert (target / "av" / "tokenizer.json").exists()
    assert json.loads((target / "card.json").read_text()) == {"name": "toy"}


def test_a_second_call_reuses_the_first_result(base: Path, shipped: Path, tmp_path: Path) -> None:
    target = assemble(shipped, base, tmp_path / "decoder")
    weights = target / "av" / "model.safetensors"
    before = weights.stat()

    assemble(shipped, base, target)

    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert pair_digest(target) == digest_pair(shipped)


def test_new_weights_replace_the_old_ones_and_leave_nothing_else(
    base: Path, shipped: Path, tmp_path: Path
) -> None:
    target = assemble(shipped, base, tmp_path / "out" / "decoder")
    first = pair_digest(target)
    toy.write_shipped(shipped, base, seed=2)

    assemble(shipped, base, target)

    assert pair_digest(target) != first
    assert [path.name for path in target.parent.iterdir()] == ["decoder"]


def test_a_newer_card_follows_without_merging_again(base: Path, shipped: Path, tmp_path: Path) -> None:
    target = assemble(shipped, base, tmp_path / "decoder")
    inode = (target / "av" / "model.safetensors").stat().st_ino
    (shipped / "card.json").write_text('{"name": "newer"}')

    assemble(shipped, base, target)

    assert json.loads((target / "card.json").read_text()) == {"name": "newer"}
    assert (target / "av" / "model.safetensors").stat().st_ino == inode


def test_the_anomaly_reference_goes_with_the_decoder(base: Path, shipped: Path, tmp_path: Path) -> None:
    (shipped / ANOMALY).write_bytes(b"one")
    target = assemble(shipped, base, tmp_path / "decoder")
    assert (target / ANOMALY).read_bytes() == b"one"
    (shipped / ANOMALY).write_bytes(b"newer")

    assemble(shipped, base, target)

    assert (target / ANOMALY).read_bytes() == b"newer"


def test_a_calibration_made_in_place_survives_a_restart(base: Path, shipped: Path, tmp_path: Path) -> None:
    target = assemble(shipped, base, tmp_path / "decoder")
    (target / "calibration.json").write_text("{}")

    assemble(shipped, base, target)

    assert (target / "calibration.json").read_text() == "{}"


def test_a_failed_assembly_leaves_nothing_behind(base: Path, shipped: Path, tmp_path: Path) -> None:
    (shipped / "ar" / "adapter_config.json").unlink()

    with pytest.raises(MetaError, match="the adapters do not fit"):
        assemble(shipped, base, tmp_path / "out" / "decoder")

    assert list((tmp_path / "out").iterdir()) == []


def test_a_decoder_of_a_wider_model_is_refused(model_dir: Path, shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(MetaError, match=r"d_model is 64, .* has 576"):
        assemble(shipped, model_dir, tmp_path / "decoder")


def test_a_decoder_of_a_deeper_model_is_refused(base: Path, shipped: Path, tmp_path: Path) -> None:
    toy.write_meta(shipped / "av", toy.meta("av", layer=20))

    with pytest.raises(MetaError, match=r"layer_index: 20 does not exist .* blocks 0\.\.2"):
        assemble(shipped, base, tmp_path / "decoder")


def test_a_head_of_another_width_is_refused(base: Path, shipped: Path, tmp_path: Path) -> None:
    toy.write_head(shipped / "ar" / "head.safetensors", d_model=8)

    with pytest.raises(MetaError, match=r"must hold one tensor 'weight' of \(64, 64\)"):
        assemble(shipped, base, tmp_path / "decoder")


def test_projector_and_labels_come_along(base: Path, shipped: Path, tmp_path: Path) -> None:
    toy.write_stages(shipped / "av")
    for role in ("av", "ar"):
        toy.write_meta(shipped / role, toy.own_meta(role))

    target = assemble(shipped, base, tmp_path / "decoder")

    for name in ("projector.safetensors", "labels.safetensors", "labels.json"):
        assert (target / "av" / name).read_bytes() == (shipped / "av" / name).read_bytes()
        assert not (target / "ar" / name).exists()
    before = digest_pair(shipped)
    (shipped / "av" / "projector.safetensors").write_bytes(b"another")
    assert digest_pair(shipped) != before


def test_a_shipped_pair_without_its_projector_is_refused(base: Path, shipped: Path, tmp_path: Path) -> None:
    for role in ("av", "ar"):
        toy.write_meta(shipped / role, toy.own_meta(role))

    with pytest.raises(MetaError, match=r"projector.safetensors: missing; it ships with the pair"):
        assemble(shipped, base, tmp_path / "decoder")
