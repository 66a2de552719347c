from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.nla import toy
from workers.nla.checkpoint.meta import Piece, Role, load_meta, parse_meta, split_template
from workers.nla.errors import MetaError

RELEASED_AV = """
kind: nla_model
schema_version: 2
role: av
stage: rl
base_checkpoint: Qwen/Qwen2.5-7B-Instruct
d_model: 3584
extraction_layer_index: 20
extraction: {injection_scale: 150.0, mse_scale: 59.86651818838306}
tokens:
  injection_char: "㈎"
  injection_token_id: 149705
  injection_left_neighbor_id: 29
  injection_right_neighbor_id: 522
  critic_suffix_ids: null
prompt_templates:
  av: "Here is the vector:\\n\\n<concept>{injection_char}</concept>\\n\\nPlease provide an explanation."
  ar: null
trained_on: [UltraFineWeb]
parent_checkpoints: [Qwen/Qwen2.5-7B-Instruct]
training: {lr: 1.0e-05}
"""


def test_a_released_file_is_read_unchanged(tmp_path: Path) -> None:
    (tmp_path / "nla_meta.yaml").write_text(RELEASED_AV)

    meta = load_meta(tmp_path, "av")

    assert (meta.role, meta.d_model, meta.layer, meta.injection_scale) == ("av", 3584, 20, 150.0)
    assert meta.tokens.injection_token_id == 149705


def test_the_trainers_own_words_for_roles_templates_and_layers_are_read() -> None:
    content = toy.meta("critic")
    content["schema_version"] = 1
    content["prompt_templates"] = {"actor": toy.AV_TEMPLATE, "critic": toy.AR_TEMPLATE}
    content["critic"] = {"num_hidden_layers": 1}
    del content["extraction"]["layer_index"]

    meta = parse_meta(content, "ar")

    assert (meta.role, meta.layer, meta.prompt_templates.ar) == ("ar", 1, toy.AR_TEMPLATE)


@pytest.mark.parametrize(
    ("written", "norm"),
    [
        ("sqrt_d_model", 8.0),
        ("raw", None),
        ("none", None),
        (150, 150.0),
        (59.86, 59.86),
        # YAML reads 8e4 as text.
        ("8e4", 80000.0),
    ],
)
def test_a_scale_is_a_number_or_a_word(written: str | float, norm: float | None) -> None:
    content = toy.meta("av")
    content["extraction"].update(injection_scale=written, mse_scale=written)

    meta = parse_meta(content, "av")

    assert (meta.injection_scale, meta.mse_scale) == (norm, norm)


@pytest.mark.parametrize(("extraction", "norm"), [({}, 8.0), ({"mse_scale": None}, None)])
def test_the_scale_of_the_loss_has_a_default_and_null_is_raw(
    extraction: dict[str, Any], norm: float | None
) -> None:
    assert parse_meta({**toy.meta("ar"), "extraction": extraction}, "ar").mse_scale == norm


DOCUMENTED_AV = """
kind: nla_model
role: actor
base_checkpoint: Qwen/Qwen2.5-7B-Instruct
d_model: 3584
extraction: {injection_scale: 150.0}
tokens:
  injection_char: "㈎"
  injection_token_id: 149705
  injection_left_neighbor_id: 29
  injection_right_neighbor_id: 522
prompt_templates: {av: "<concept>{injection_char}</concept>"}
"""
DOCUMENTED_AR = """
kind: nla_model
role: ar
base_checkpoint: Qwen/Qwen2.5-7B-Instruct
d_model: 3584
extraction: {mse_scale: 59.87}
ar: {num_hidden_layers: 20}
tokens: {critic_suffix_ids: [1318, 29, 366, 1708, 29]}
prompt_templates: {ar: "Summary of the following text: <text>{explanation}</text> <summary>"}
"""


def test_the_fields_that_the_documents_ask_for_are_enough() -> None:
    av, ar = (
        parse_meta(yaml.safe_load(DOCUMENTED_AV), "av"),
        parse_meta(yaml.safe_load(DOCUMENTED_AR), "ar"),
    )

    assert av.injection == ("㈎", 149705, 29, 522)
    assert (ar.layer, ar.mse_scale, ar.tokens.critic_suffix_ids) == (20, 59.87, [1318, 29, 366, 1708, 29])


def test_an_empty_new_name_leaves_the_word_to_the_old_one() -> None:
    content = toy.meta("av")
    content["prompt_templates"] = {"av": None, "actor": toy.AV_TEMPLATE, "ar": "", "critic": None}

    meta = parse_meta(content, "av")

    assert (meta.prompt_templates.av, meta.prompt_templates.ar) == (toy.AV_TEMPLATE, None)


def test_a_layer_may_be_left_to_the_other_half() -> None:
    content = toy.meta("av")
    del content["extraction"]["layer_index"]
    del content["critic"]

    assert parse_meta(content, "av").layer is None


FAULTS: list[tuple[str, Role, Callable[[dict[str, Any]], object], str]] = [
    ("data set", "av", lambda m: m.update(kind="nla_dataset"), "kind: .*nla_dataset.*checkpoint"),
    ("unknown version", "av", lambda m: m.update(schema_version=3), "schema_version: .*1 or 2"),
    ("unknown role", "av", lambda m: m.update(role="judge"), "role: .*judge"),
    ("no role", "av", lambda m: m.pop("role"), "role: missing; add it"),
    ("no model", "av", lambda m: m.pop("base_checkpoint"), "base_checkpoint: missing"),
    ("no width", "av", lambda m: m.pop("d_model"), "d_model: missing"),
    ("width as text", "av", lambda m: m.update(d_model="64"), "d_model: .*valid integer"),
    ("no tokens", "av", lambda m: m.pop("tokens"), "tokens.injection_char: missing; add it"),
    (
        "no token id",
        "av",
        lambda m: m["tokens"].pop("injection_token_id"),
        "tokens.injection_token_id: missing",
    ),
    (
        "no neighbour",
        "av",
        lambda m: m["tokens"].pop("injection_left_neighbor_id"),
        "tokens.injection_left_neighbor_id: missing; add it: it is the id before it",
    ),
    (
        "no other neighbour",
        "av",
        lambda m: m["tokens"].update(injection_right_neighbor_id=None),
        "tokens.injection_right_neighbor_id: missing; add it: it is the id after it",
    ),
    (
        "no scale",
        "av",
        lambda m: m["extraction"].pop("injection_scale"),
        "extraction.injection_scale: missing; .* or raw if",
    ),
    (
        "unknown scale",
        "av",
        lambda m: m["extraction"].update(injection_scale="mean"),
        "extraction.injection_scale: .*'mean'.* a number, sqrt_d_model or raw",
    ),
    (
        "unknown scale of the loss",
        "ar",
        lambda m: m["extraction"].update(mse_scale=-1),
        "extraction.mse_scale: .*greater than 0",
    ),
    (
        "zero scale",
        "av",
        lambda m: m["extraction"].update(injection_scale=0),
        "injection_scale: .*greater than 0",
    ),
    ("no template", "av", lambda m: m["prompt_templates"].pop("av"), "prompt_templates.av: missing"),
    ("no AR template", "ar", lambda m: m["prompt_templates"].pop("ar"), "prompt_templates.ar: missing"),
    (
        "template without a place",
        "av",
        lambda m: m["prompt_templates"].update(av="nothing"),
        "prompt_templates.av: must hold {injection_char} exactly once, holds it 0 times",
    ),
    (
        "template with another placeholder",
        "ar",
        lambda m: m["prompt_templates"].update(ar="{explanation} {x}"),
        "prompt_templates.ar: has a placeholder other than {explanation}",
    ),
    ("two layers", "ar", lambda m: m["critic"].update(extraction_layer_index=2), "name different layers"),
]


@pytest.mark.parametrize(("role", "break_it", "message"), [pytest.param(*f[1:], id=f[0]) for f in FAULTS])
def test_each_fault_names_its_field(
    role: Role, break_it: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = toy.meta(role)
    break_it(content)

    with pytest.raises(MetaError, match=message):
        parse_meta(content, role)


def test_a_reconstructor_in_the_verbalizers_place_is_refused() -> None:
    with pytest.raises(MetaError, match="role: is 'ar' where 'av' belongs"):
        parse_meta(toy.meta("ar"), "av")


@pytest.mark.parametrize("content", ["- a list", "", "kind: [unclosed", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_with_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "nla_meta.yaml").write_text(content)

    with pytest.raises(MetaError, match=r"nla_meta.yaml: "):
        load_meta(tmp_path, "av")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetaError, match=r"nla_meta.yaml: missing"):
        load_meta(tmp_path, "av")


def test_our_own_file_is_read(tmp_path: Path) -> None:
    toy.write_meta(tmp_path, toy.own_meta("av"))

    meta = load_meta(tmp_path, "av")

    assert meta.projector is not None
    assert (meta.projector.rows, meta.projector.scale, meta.projector.mean) == (toy.ROWS, toy.SCALE, "mean")
    assert (meta.prompt_templates.chat, meta.prompt_templates.end) == (False, toy.END)
    assert meta.extra_files == ["projector.safetensors", "labels.safetensors", "labels.json"]
    assert parse_meta(toy.meta("av"), "av").extra_files == []


def test_a_template_is_split_at_its_placeholders_and_keeps_doubled_braces() -> None:
    pieces = split_template("ar", "{{a}} {explanation}{{}}{token}")

    assert pieces == [
        Piece("{a} "),
        Piece("explanation", is_place=True),
        Piece("{}"),
        Piece("token", is_place=True),
    ]


def set_templates(**templates: str | bool) -> Callable[[dict[str, Any]], object]:
    return lambda m: m["prompt_templates"].update(templates)


AV = toy.OWN_AV_TEMPLATE
OWN_FAULTS: list[tuple[str, Role, Callable[[dict[str, Any]], object], str]] = [
    (
        "token twice",
        "av",
        set_templates(av=AV.replace("{token}", "{token}{token}")),
        "{token} at most once, ",
    ),
    ("labels twice", "av", set_templates(av=f"{{labels}}{AV}"), "{labels} at most once, holds it 2 times"),
    (
        "injection twice",
        "av",
        set_templates(av=f"{{injection_char}}{AV}"),
        "{injection_char} exactly once, holds it 2 times",
    ),
    (
        "token in a chat",
        "av",
        set_templates(chat=True),
        "prompt_templates.chat: must be false .* write the whole",
    ),
    (
        "labels without section",
        "av",
        lambda m: m.pop("labels"),
        "there is {labels} in av and no section; add",
    ),
    (
        "section without labels",
        "av",
        set_templates(av=AV.replace("{labels}", "")),
        "there is the section and no {labels} in av; add",
    ),
    ("labels elsewhere", "av", set_templates(av=f"{AV} now"), """must end with '{labels} Expects "'"""),
    (
        "labels without projector",
        "av",
        lambda m: (m.pop("projector"), m["extraction"].update(injection_scale=1)),
        "projector: missing; add it: labels are told from",
    ),
    (
        "labels without end",
        "av",
        lambda m: m["prompt_templates"].pop("end"),
        "prompt_templates.end: missing; add it: it is the token",
    ),
    ("no rows", "av", lambda m: m["projector"].update(rows=0), "projector.rows: .*how many soft tokens"),
    ("no scale", "av", lambda m: m["projector"].pop("scale"), "projector.scale: missing; add it"),
    (
        "file elsewhere",
        "av",
        lambda m: m["projector"].update(file="../x"),
        "projector.file: .*beside nla_meta",
    ),
    (
        "token before the end",
        "ar",
        set_templates(ar="{token}{explanation}"),
        "prompt_templates.ar: must end with {token}; the vector is read at that token",
    ),
    (
        "labels in the AR",
        "ar",
        set_templates(ar="{labels}{explanation}"),
        "has a placeholder other than {explanation} and {token}",
    ),
    ("style", "ar", set_templates(ar="{explanation!r}"), "has a placeholder other than {explanation}"),
    ("brace", "ar", set_templates(ar="{explanation} {"), "double other braces"),
]


@pytest.mark.parametrize(
    ("role", "break_it", "message"), [pytest.param(*f[1:], id=f[0]) for f in OWN_FAULTS]
)
def test_each_fault_of_our_own_file_names_its_field(
    role: Role, break_it: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = toy.own_meta(role)
    break_it(content)

    with pytest.raises(MetaError, match=message):
        parse_meta(content, role)


def test_an_av_without_projector_still_needs_its_scale() -> None:
    content = toy.own_meta("av")
    content["prompt_templates"]["av"] = "{injection_char} and{token}"
    del content["projector"], content["labels"]

    with pytest.raises(MetaError, match=r"extraction.injection_scale: missing"):
        parse_meta(content, "av")
