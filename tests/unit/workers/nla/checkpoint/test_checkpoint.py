import json
from pathlib import Path

import pytest

from tests.support.nla import toy
from workers.nla.checkpoint.pair import check_audited, load_pair, load_shape
from workers.nla.errors import MetaError


@pytest.fixture
def pair_dir(tmp_path: Path) -> Path:
    toy.write_description(tmp_path / "av", "av", blocks=toy.BLOCKS)
    toy.write_description(tmp_path / "ar", "ar", blocks=toy.LAYER + 1)
    (tmp_path / "ar" / "value_head.safetensors").touch()
    return tmp_path


def change_meta(folder: Path, role: str, **fields: object) -> None:
    toy.write_meta(folder / role, {**toy.meta(role), **fields})


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_right_pair_tells_its_layer(pair_dir: Path) -> None:
    pair = load_pair(pair_dir / "av", pair_dir / "ar")

    assert (pair.layer, pair.av.shape.family, pair.ar.shape.num_layers) == (1, "llama", 2)


def test_a_pair_that_leaves_its_layer_out_is_read_by_its_truncation(pair_dir: Path) -> None:
    for role in ("av", "ar"):
        extraction = {**toy.meta(role)["extraction"], "layer_index": None}
        change_meta(pair_dir, role, extraction=extraction, critic=None)

    assert load_pair(pair_dir / "av", pair_dir / "ar").layer == 1


def test_the_width_of_meta_and_config_must_agree(pair_dir: Path) -> None:
    change_config(pair_dir / "av", hidden_size=128)

    with pytest.raises(MetaError, match=r"d_model is 64 in nla_meta.yaml, hidden_size is 128"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_an_untruncated_reconstructor_is_refused(pair_dir: Path) -> None:
    change_config(pair_dir / "ar", num_hidden_layers=3)
    toy.write_weights(pair_dir / "ar", blocks=3)

    with pytest.raises(MetaError, match=r"num_hidden_layers is 3 .* keeps blocks 0..1, that is 2"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_layer_beyond_the_model_is_refused(pair_dir: Path) -> None:
    change_config(pair_dir / "av", num_hidden_layers=1)

    with pytest.raises(MetaError, match="layer 1 does not exist in a model of 1 blocks"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_halves_of_two_layers_are_refused(pair_dir: Path) -> None:
    extraction = {**toy.meta("av")["extraction"], "layer_index": 0}
    change_meta(pair_dir, "av", extraction=extraction, critic=None)

    with pytest.raises(MetaError, match="the AV reads layer 0, the AR rebuilds layer 1"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_halves_of_two_families_are_refused(pair_dir: Path) -> None:
    change_config(pair_dir / "ar", model_type="qwen2")

    with pytest.raises(MetaError, match="model_type: 'llama' in the AV, 'qwen2' in the AR"):
        load_pair(pair_dir / "av", pair_dir / "ar")


@pytest.mark.parametrize(("given", "other"), [("av", "ar"), ("ar", "av")])
def test_halves_of_which_one_is_given_the_token_are_refused(pair_dir: Path, given: str, other: str) -> None:
    toy.write_meta(pair_dir / given, toy.own_meta(given))

    with pytest.raises(
        MetaError, match=rf"prompt_templates.{other}: has no {{token}}, prompt_templates.{given} has"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_halves_of_two_models_are_refused(pair_dir: Path) -> None:
    change_meta(pair_dir, "ar", base_checkpoint="toys/Other")

    with pytest.raises(MetaError, match="base_checkpoint: 'toy-instruct' in the AV, 'other' in the AR"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_reconstructor_without_its_head_is_refused(pair_dir: Path) -> None:
    (pair_dir / "ar" / "value_head.safetensors").unlink()

    with pytest.raises(MetaError, match=r"value_head.safetensors: missing"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_reconstructor_under_the_name_of_a_verbalizer_is_refused(pair_dir: Path) -> None:
    (pair_dir / "av" / "value_head.safetensors").touch()

    with pytest.raises(
        MetaError, match=r"role: nla_meta.yaml says av, but only a reconstructor has a head"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_an_uncut_reconstructor_of_no_named_layer_is_refused(pair_dir: Path) -> None:
    for role in ("av", "ar"):
        extraction = {**toy.meta(role)["extraction"], "layer_index": None}
        change_meta(pair_dir, role, extraction=extraction, critic=None)
    change_config(pair_dir / "ar", num_hidden_layers=3)
    toy.write_weights(pair_dir / "ar", blocks=3)

    with pytest.raises(
        MetaError, match=r"critic.extraction_layer_index: missing, and the AR has all 3 blocks"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_weights_of_another_width_are_refused(pair_dir: Path) -> None:
    toy.write_weights(pair_dir / "av", blocks=toy.BLOCKS, d_model=32)

    with pytest.raises(
        MetaError, match=r"d_model is 64 in nla_meta.yaml, embeddings in the weights are 32"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_weights_without_some_blocks_are_refused(pair_dir: Path) -> None:
    toy.write_weights(pair_dir / "av", blocks=1)

    with pytest.raises(MetaError, match=r"num_hidden_layers is 3 .* nothing for blocks \[1, 2\]"):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_vocabulary_without_the_injection_token_is_refused(pair_dir: Path) -> None:
    toy.write_weights(pair_dir / "av", blocks=toy.BLOCKS, vocabulary=31854)

    with pytest.raises(
        MetaError, match=r"injection_token_id: is 31854, the weights embed tokens below 31854"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_list_of_layer_types_that_was_not_cut_is_refused(pair_dir: Path) -> None:
    change_config(pair_dir / "ar", layer_types=["full_attention"] * 3)

    with pytest.raises(
        MetaError, match=r"layer_types: names 3 blocks, num_hidden_layers is 2; cut the list"
    ):
        load_pair(pair_dir / "av", pair_dir / "ar")


def test_a_decoder_fits_its_model_by_the_last_part_of_its_name(pair_dir: Path) -> None:
    pair = load_pair(pair_dir / "av", pair_dir / "ar")

    check_audited(pair, model="models/toy-instruct/", layer=1, d_model=64)


@pytest.mark.parametrize(
    ("model", "layer", "d_model", "message"),
    [
        ("Qwen/Qwen2.5-7B", 1, 64, "base_checkpoint: this decoder reads 'toys/Toy-Instruct'"),
        ("Toy-Instruct", 2, 64, "reads layer 1, the plugin captures layer 2"),
        ("Toy-Instruct", 1, 576, "takes vectors of 64, the audited model gives 576"),
    ],
)
def test_a_decoder_of_another_model_layer_or_width_is_refused(
    pair_dir: Path, model: str, layer: int, d_model: int, message: str
) -> None:
    pair = load_pair(pair_dir / "av", pair_dir / "ar")

    with pytest.raises(MetaError, match=message):
        check_audited(pair, model=model, layer=layer, d_model=d_model)


def test_the_shape_is_found_inside_a_multimodal_wrapper(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 3840, "num_hidden_layers": 48}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))

    assert load_shape(tmp_path) == ("gemma3_text", 3840, 48)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[", "not a model's configuration"), ("[]", "not a model's"), ("{}", "model_type: missing")],
)
def test_a_broken_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)

    with pytest.raises(MetaError, match=message):
        load_shape(tmp_path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetaError, match=r"config.json: missing"):
        load_shape(tmp_path)
