"""SmolLM2 as an untrained pair: the model as AV, its blocks 0..20 with an identity head as AR."""

import json
from pathlib import Path

from tests.support.nla import toy
from workers.nla.decoder import GivenFacts
from workers.nla.engine.verbalizer import EngineSettings

LAYER = 20
D_MODEL = 576
NEW_TOKENS = 16
SETTINGS = EngineSettings(max_new_tokens=NEW_TOKENS, candidates=1, products="float32")
"""float32, because tests compare scores almost exactly."""
# With this prompt the untrained model's answer depends on the vector.
TEMPLATE = "Write a short story about <concept>{injection_char}</concept>"
SCALE = 4.0


def given(count: int, token_id: int = 0) -> GivenFacts:
    """Return the records' facts for `count` vectors of an answer."""
    return GivenFacts([token_id] * count, ["decode"] * count)


def write_half(folder: Path, role: str, model_dir: Path, *, blocks: int) -> None:
    content = toy.meta(role, d_model=D_MODEL, layer=LAYER)
    content["prompt_templates"]["av"] = TEMPLATE
    content["extraction"]["injection_scale"] = SCALE
    toy.write_meta(folder, content)
    for name in ("model.safetensors", *toy.TOKENIZER_FILES):
        (folder / name).symlink_to(model_dir / name)
    config = json.loads((model_dir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))


def write_pair(folder: Path, model_dir: Path) -> None:
    write_half(folder / "av", "av", model_dir, blocks=30)
    write_half(folder / "ar", "ar", model_dir, blocks=LAYER + 1)
    toy.write_head(folder / "ar" / "value_head.safetensors", D_MODEL)
