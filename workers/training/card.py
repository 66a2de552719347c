"""The pair's card: what was measured, on what, at what cost, and what it cannot do."""

import json
from pathlib import Path
from typing import Any

from workers.training.config import RunConfig

_LABELS = {
    "reconstructor": {
        "true_text_fve": "AR on true explanations, centred FVE",
        "shuffled_text_fve": "AR on another chat's explanations (null)",
        "empty_text_fve": "AR on empty text (null)",
        "token_mean_baseline_fve": "no decoder: mean of each token's training vectors (baseline)",
    },
    "verbalizer": {
        "last_token_right": "AV names the read token, words before given",
        "last_token_right_shuffled": "the same with another chat's vector (null)",
        "next_token_right": "AV names the model's likeliest next token, words before given",
        "next_token_right_shuffled": "the same with another chat's vector (null)",
        "loss_gap_shuffled_minus_real": "loss of the quotes, other chat's vector minus own, nats a token",
    },
    "round_trip": {
        "fve": "vector to text to vector, writing freely, centred FVE",
        "shuffled_fve": "the same against another chat's vector (null)",
        "random_vector_fve": "the same for random Gaussian vectors (null)",
        "last_token_quoted_right": "read token quoted exactly, writing freely",
        "well_formed": "readings with both tags",
    },
}


def build_card(
    config: RunConfig, figures: dict[str, Any], training: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """Return the card as JSON-ready values."""
    return {
        "name": config.name,
        "model": config.model_name,
        "model_licence": config.model_licence,
        "layer": config.layer,
        "targets": 'It has read "X" after "<words before>" and expects "a", "b" or "c". '
        "This is <register> about <topic>, touching on <kinds>.",
        "figures": figures,
        "training": training,
        "data": data,
        "fve": "1 - |u-v|^2 / baseline on unit vectors; baseline = 1 - |mean u|^2 over the calibration set",
        "notes": list(config.notes),
        "intervals": "95% bootstrap over whole chats",
    }


def write_card(card: dict[str, Any], config: RunConfig, target: Path) -> None:
    """Write card.json and the model card README.md."""
    (target / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    (target / "README.md").write_text(render(card, config))


def render(card: dict[str, Any], config: RunConfig) -> str:
    """Return the model card as Markdown."""
    return _TEMPLATE.format(
        **{
            name: card[name]
            for name in ("name", "model", "model_licence", "layer", "targets", "fve", "intervals")
        },
        figures="\n".join(
            f"| {label} | {_value(card['figures'][part][name])} | {card['figures'][part][name]['n']} |"
            for part, labels in _LABELS.items()
            for name, label in labels.items()
        ),
        chats=card["data"]["chats"],
        vectors=card["data"]["train"],
        temperature=config.chats.temperature,
        costs="\n".join(
            f"- {name}: {cost['examples']} examples, {cost['minutes']:.0f} minutes on the CPU"
            for name, cost in card["training"].items()
        ),
        sources="\n".join(
            f"| `{source.wheel}` ({source.licence}) | `{source.member}` | up to {source.count} |"
            for source in config.prompts.sources
        ),
        own=config.prompts.own,
        notes="\n".join(f"- {note}" for note in config.notes),
    )


_TEMPLATE = """\
# {name}: an NLA pair for {model}, layer {layer}

LoRA adapters (float16) and a head; `workers.nla.assemble` merges them into the base model.
Base model: {model} ({model_licence}). Adapters, head and card: Apache-2.0.

## What it says
`{targets}`

## Measured on held-out chats
{fve}; {intervals}.

| figure | value [95%] | n |
|---|---|---|
{figures}

`calibration.json` holds the same round trip on the calibration chats, read by the worker's own engine,
with the threshold of `verified`.

{notes}

## What it can and cannot do
- It names the token that was read, guesses the likeliest next tokens, and recalls a little of the text
  before. The first is mostly right, the second sometimes; the quoted text is often invented.
- It does not describe intentions, plans, feelings or facts, and was never trained to.
- A reading is a hypothesis. `verified` tells that the text carries the vector better than 95% of
  shuffled readings and better than the mean; it never tells that a statement in it is true.
- It knows short chats of this one model at this one layer. Other formats, long contexts and the
  first ten tokens were not measured.

## Training
{chats} chats, answered by the model itself at temperature {temperature}; {vectors} training vectors;
whole chats are held out. Cost:

{costs}

| wheel (declared licence) | file | prompts |
|---|---|---|
{sources}
| own | `{own}` | all |

The prompts' texts are not shipped. The licences are those that the packages declare; data sets inside
them keep their authors' terms. Reproduce with `subtext train --config run.yaml`.
"""


def _value(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
