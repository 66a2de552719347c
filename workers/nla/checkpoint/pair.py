"""Checks that a decoder's files, its two halves and the audited model belong together.

The checks read no weights beyond their headers, so a wrong decoder is refused in milliseconds.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workers.nla.checkpoint.meta import TOKEN, Meta, Role, load_meta, split_template
from workers.nla.checkpoint.weights import read_layout
from workers.nla.errors import MetaError

HEADS = ("value_head.safetensors", "head.safetensors")
"""File names of the AR's head: in official checkpoints, and in shipped adapters."""


class Shape(NamedTuple):
    """A model's architecture from `config.json`."""

    family: str
    """`model_type`, for example "llama"."""
    d_model: int
    num_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One validated half of a pair."""

    folder: Path
    meta: Meta
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two validated halves that belong together."""

    av: Half
    ar: Half
    layer: int
    """K: vectors are the output of block K of the audited model."""


def load_pair(av: Path, ar: Path) -> Pair:
    """Validate both halves, also against each other; MetaError names the field and the fix."""
    verbalizer, reconstructor = load_half(av, "av"), load_half(ar, "ar")
    find_head(ar)
    _check_not_reconstructor(verbalizer)
    layer = _check_truncation(reconstructor, verbalizer)
    _check_together(verbalizer, reconstructor, layer)
    return Pair(av=verbalizer, ar=reconstructor, layer=layer)


def check_audited(pair: Pair, *, model: str, layer: int, d_model: int) -> None:
    """Raise MetaError unless the pair is for the audited model, layer and width.

    `model` may be a name or a path; only the last part counts, case-insensitively.
    """
    meta = pair.av.meta
    if _last_part(meta.base_checkpoint) != _last_part(model):
        raise MetaError(
            f"base_checkpoint: this decoder reads {meta.base_checkpoint!r}, the audited model is {model!r};"
            " point SUBTEXT_DECODER_DIR at a decoder of that model"
        )
    if pair.layer != layer:
        raise MetaError(
            f"extraction_layer_index: this decoder reads layer {pair.layer}, the plugin captures layer"
            f' {layer}; set "layer": {pair.layer} in --additional-config or use another decoder'
        )
    if meta.d_model != d_model:
        raise MetaError(
            f"d_model: this decoder takes vectors of {meta.d_model}, the audited model gives {d_model};"
            " use the decoder of that model"
        )


def load_half(folder: Path, role: Role) -> Half:
    """Read one half and check its files against each other; raises MetaError."""
    meta, shape = load_meta(folder, role), load_shape(folder)
    if shape.d_model != meta.d_model:
        raise MetaError(
            f"{folder}: d_model is {meta.d_model} in nla_meta.yaml, hidden_size is {shape.d_model} in"
            " config.json; the two files come from different checkpoints, copy both again"
        )
    _check_weights(folder, meta, shape)
    return Half(folder=folder, meta=meta, shape=shape)


def load_shape(folder: Path) -> Shape:
    """Read `config.json`, from its `text_config` for multimodal models; raises MetaError."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = {**config, **config.get("text_config", {})}
        shape = Shape(
            str(config["model_type"]), int(config["hidden_size"]), int(config["num_hidden_layers"])
        )
        types = len(config.get("layer_types") or range(shape.num_layers))
    except FileNotFoundError:
        raise MetaError(f"{path}: missing; a checkpoint is a whole Hugging Face directory") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise MetaError(f"{path}: not a model's configuration ({error}); copy it again") from error
    except KeyError as error:
        raise MetaError(f"{path}: {error.args[0]}: missing; copy the file again") from None
    if types != shape.num_layers:
        raise MetaError(
            f"{path}: layer_types: names {types} blocks, num_hidden_layers is {shape.num_layers}; cut the"
            f" list to its first {shape.num_layers} entries"
        )
    return shape


def find_head(folder: Path) -> Path:
    """Return the file of the AR's head; raises MetaError when there is none."""
    for name in HEADS:
        if (folder / name).exists():
            return folder / name
    raise MetaError(
        f"{folder / HEADS[0]}: missing; the AR's trained head ships beside its config.json and cannot be"
        " derived from it"
    )


def _check_weights(folder: Path, meta: Meta, shape: Shape) -> None:
    """Raise MetaError for weights of another width or depth, or without the injection token."""
    layout = read_layout(folder)
    if layout.d_model != meta.d_model:
        raise MetaError(
            f"{folder}: d_model is {meta.d_model} in nla_meta.yaml, embeddings in the weights are"
            f" {layout.d_model} wide; the files come from different checkpoints, copy all of them again"
        )
    missing = sorted(set(range(shape.num_layers)) - layout.blocks)
    if missing:
        raise MetaError(
            f"{folder}: num_hidden_layers is {shape.num_layers} in config.json, the weights have nothing"
            f" for blocks {missing}; the files come from different checkpoints, copy all of them again"
        )
    token = meta.tokens.injection_token_id
    if meta.role == "av" and token is not None and token >= layout.vocabulary:
        raise MetaError(
            f"{folder}: tokens.injection_token_id: is {token}, the weights embed tokens below"
            f" {layout.vocabulary}; nla_meta.yaml is of a model with another vocabulary, copy it again"
        )


def _check_not_reconstructor(av: Half) -> None:
    heads = [name for name in HEADS if (av.folder / name).exists()]
    if heads:
        raise MetaError(
            f"{av.folder / heads[0]}: role: nla_meta.yaml says av, but only a reconstructor has a head; put"
            " the verbalizer here and this checkpoint into ar/, each with its own nla_meta.yaml"
        )


def _check_truncation(ar: Half, av: Half) -> int:
    """Return K, checking that the AR holds exactly blocks 0..K."""
    kept, layer = ar.shape.num_layers, ar.meta.layer
    if layer is None and av.meta.layer is None and kept == av.shape.num_layers:
        raise MetaError(
            f"{ar.folder}: critic.extraction_layer_index: missing, and the AR has all {kept} blocks of the"
            " model, so nothing tells the layer; name it, and keep blocks 0..K alone"
        )
    if layer is not None and kept != layer + 1:
        raise MetaError(
            f"{ar.folder}: num_hidden_layers is {kept} in config.json, but an AR of layer {layer} keeps"
            f" blocks 0..{layer}, that is {layer + 1}; truncate the checkpoint or correct"
            " critic.extraction_layer_index"
        )
    return kept - 1


def _check_together(av: Half, ar: Half, layer: int) -> None:
    if av.meta.layer not in {None, layer}:
        raise MetaError(
            f"extraction_layer_index: the AV reads layer {av.meta.layer}, the AR rebuilds layer {layer};"
            " the halves are of two pairs"
        )
    if layer >= av.shape.num_layers:
        raise MetaError(
            f"extraction_layer_index: layer {layer} does not exist in a model of {av.shape.num_layers}"
            f" blocks (0..{av.shape.num_layers - 1}); the halves are of two models"
        )
    for field, mine, other in (
        ("d_model", av.meta.d_model, ar.meta.d_model),
        ("model_type", av.shape.family, ar.shape.family),
        ("base_checkpoint", _last_part(av.meta.base_checkpoint), _last_part(ar.meta.base_checkpoint)),
    ):
        if mine != other:
            raise MetaError(f"{field}: {mine!r} in the AV, {other!r} in the AR; use two halves of one pair")
    halves: dict[Role, Half] = {"av": av, "ar": ar}
    takes = {
        role: TOKEN in split_template(role, getattr(half.meta.prompt_templates, role))
        for role, half in halves.items()
    }
    if takes["av"] != takes["ar"]:
        has, lacks = ("av", "ar") if takes["av"] else ("ar", "av")
        raise MetaError(
            f"prompt_templates.{lacks}: has no {{token}}, prompt_templates.{has} has; both halves of a pair"
            " are given the read token or neither, use two halves of one pair"
        )


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()
