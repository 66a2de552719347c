"""Every failure that the official documents list is refused when a decoder is opened, with its fix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.nla import families
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import EngineSettings
from workers.nla.errors import DecoderError


@pytest.fixture(scope="module")
def right_pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family.name: families.write_pair(family, tmp_path_factory.mktemp(family.name))
        for family in (families.QWEN2, families.GEMMA3)
    }


def change_meta(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = families.read_meta(folder)
    change(content)
    families.write_meta(folder, content)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def double_the_bos_of_the_chat(folder: Path) -> None:
    template = (folder / "av" / "chat_template.jinja").read_text()
    (folder / "av" / "chat_template.jinja").write_text("{{ bos_token }}" + template)


def double_the_bos_of_the_summary(folder: Path) -> None:
    change_meta(
        folder / "ar", lambda meta: meta["prompt_templates"].update(critic="<bos>" + families.AR_TEMPLATE)
    )


def drop_the_bos_of_the_summary(folder: Path) -> None:
    change_json(folder / "ar" / "tokenizer.json", lambda tokenizer: tokenizer.update(post_processor=None))


def drift_the_verbalizers_template(folder: Path) -> None:
    drifted = families.AV_TEMPLATE.replace("<concept>", "<concept> ")
    change_meta(folder / "av", lambda meta: meta["prompt_templates"].update(actor=drifted))


def drift_the_reconstructors_template(folder: Path) -> None:
    drifted = families.AR_TEMPLATE.replace("<summary>", "<short>")
    change_meta(folder / "ar", lambda meta: meta["prompt_templates"].update(critic=drifted))


def renumber_the_injection_token(folder: Path) -> None:
    change_meta(
        folder / "av",
        lambda meta: meta["tokens"].update(injection_token_id=meta["tokens"]["injection_token_id"] - 1),
    )


def take_the_scale_of_another_model(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta["extraction"].update(injection_scale=80000.0))


def take_the_small_scale_of_another_model(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta["extraction"].update(injection_scale=0.15))


def drop_the_scale(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta["extraction"].update(injection_scale=None))


def drop_a_neighbour(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta["tokens"].pop("injection_right_neighbor_id"))


def drop_the_head(folder: Path) -> None:
    (folder / "ar" / "value_head.safetensors").unlink()


def swap_the_halves(folder: Path) -> None:
    (folder / "av").rename(folder / "x")
    (folder / "ar").rename(folder / "av")
    (folder / "x").rename(folder / "ar")


def swap_the_descriptions(folder: Path) -> None:
    av, ar = families.read_meta(folder / "av"), families.read_meta(folder / "ar")
    families.write_meta(folder / "av", {**ar, "role": "actor", "extraction": av["extraction"]})
    shutil.copyfile(folder / "ar" / "value_head.safetensors", folder / "av" / "value_head.safetensors")


def change_the_width(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta.update(d_model=96))


def change_the_width_of_both_descriptions(folder: Path) -> None:
    change_meta(folder / "av", lambda meta: meta.update(d_model=96))
    change_json(folder / "av" / "config.json", lambda config: config.update(hidden_size=96))


def keep_the_final_block(folder: Path) -> None:
    shutil.copyfile(folder / "av" / "model.safetensors", folder / "ar" / "model.safetensors")
    shutil.copyfile(folder / "av" / "config.json", folder / "ar" / "config.json")


FAILURES = [
    (
        "gemma3",
        double_the_bos_of_the_chat,
        "bos_token: the AV's prompt starts with two .* in one place only",
    ),
    (
        "gemma3",
        double_the_bos_of_the_summary,
        "bos_token: the AR's prompt starts with two .* in one place only",
    ),
    (
        "gemma3",
        drop_the_bos_of_the_summary,
        "bos_token: the AR's prompt must start with token .* set add_bos_token",
    ),
    (
        "qwen2",
        drift_the_verbalizers_template,
        "injection_left_neighbor_id: .* the template or the tokenizer drifted",
    ),
    (
        "qwen2",
        drift_the_reconstructors_template,
        "critic_suffix_ids: .* prompt_templates.ar or the tokenizer drifted",
    ),
    (
        "qwen2",
        renumber_the_injection_token,
        "injection_token_id: '㈎' is .* restore the checkpoint's own files",
    ),
    ("qwen2", take_the_scale_of_another_model, "injection_scale: 80000, while activations .* restore"),
    (
        "gemma3",
        take_the_small_scale_of_another_model,
        "injection_scale: 0.15, while activations .* restore",
    ),
    ("qwen2", drop_the_scale, "extraction.injection_scale: missing; .* ask its publisher"),
    ("qwen2", drop_a_neighbour, "tokens.injection_right_neighbor_id: missing; add it"),
    ("qwen2", drop_the_head, "value_head.safetensors: missing; .* ships beside its config.json"),
    ("qwen2", swap_the_halves, "role: is 'ar' where 'av' belongs; the verbalizer goes to av/"),
    (
        "qwen2",
        swap_the_descriptions,
        "role: nla_meta.yaml says av, but only a reconstructor has a head; put",
    ),
    ("qwen2", change_the_width, "d_model is 96 in nla_meta.yaml, hidden_size is 64 .* copy both again"),
    (
        "qwen2",
        change_the_width_of_both_descriptions,
        "d_model is 96 .* embeddings in the weights are 64 wide",
    ),
    (
        "gemma3",
        keep_the_final_block,
        "num_hidden_layers is 3 in config.json, but an AR of layer 1 .* truncate",
    ),
]


@pytest.mark.parametrize(
    ("family", "break_it", "message"),
    [pytest.param(*failure, id=failure[1].__name__) for failure in FAILURES],
)
def test_a_documented_failure_is_refused_with_its_fix(
    right_pairs: dict[str, Path],
    tmp_path: Path,
    family: str,
    break_it: Callable[[Path], object],
    message: str,
) -> None:
    folder = tmp_path / "decoder"
    shutil.copytree(right_pairs[family], folder)
    break_it(folder)

    with pytest.raises(DecoderError, match=message):
        NlaDecoder.open(folder, EngineSettings())
