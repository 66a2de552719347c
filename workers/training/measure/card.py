"""The pair's card: figures, data, costs and limitations.

`python -m workers.training.measure.card --config RUN_FILE --pair FOLDER` renders a pair's README.md again
from its card.json, with the run file's notes.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from workers.training.config import RunConfig, load_config

_ROUND_TRIP = {
    "same_token_null_best_fve": "null: another chat's readings with this token at their end, best of {n}",
    "same_token_null_best_beyond_token": "the same, beyond the token",
    "same_token_null_greedy_fve": "null: another chat's one reading with this token at its end",
    "same_token_null_greedy_beyond_token": "the same, beyond the token",
    "shuffled_fve": "null: another chat's reading as it is",
    "token_mean_baseline_fve": "no decoder: the mean of each token's training vectors",
    "greedy_fve": "one reading, the likeliest",
    "greedy_beyond_token": "the same, beyond the token",
    "one_sampled_fve": "one reading, sampled",
    "one_sampled_beyond_token": "the same, beyond the token",
    "best_fve": "best of {n} readings",
    "best_beyond_token": "the same, beyond the token",
    "best_fve_prompt": "best of {n}, at the client's words",
    "best_beyond_token_prompt": "the same, beyond the token",
    "best_fve_answer": "best of {n}, at the model's own words",
    "best_beyond_token_answer": "the same, beyond the token",
    "pairs_won_greedy": "share of vectors whose own reading beats that null",
    "well_formed": "vectors whose readings all keep the format",
}
_RECONSTRUCTOR = {
    "shuffled_text_fve": "AR on another chat's true reading (null)",
    "empty_text_fve": "AR on the token alone, without words (null)",
    "true_text_fve": "AR on true readings",
    "true_text_beyond_token": "the same, beyond the token",
}
_VERBALIZER = {
    "next_token_right": "AV names the model's likeliest next token",
    "next_token_right_shuffled": "the same with another chat's vector (null)",
    "token_before_right": "AV names the token before the read one, words before given",
    "token_before_right_shuffled": "the same with another chat's vector (null)",
    "second_before_right": "AV names the second before it",
    "fourth_before_right": "AV names the fourth before it",
    "loss_of_the_quote": "loss of the quoted words, nats a token",
    "loss_gap_shuffled_minus_real": "other chat's vector minus own",
}
_ORIGINS = {"sets": "prompts of evaluation sets", "real": "prompts that people once typed"}
_THEMES = {
    "area_right_{origin}": "the likeliest area is the labeller's: all answer positions",
    "area_right_surest_30_{origin}": "the same, surest 30%",
    "area_named_{origin}": "share of positions where an area is named at all; the others abstain",
    "area_right_where_named_{origin}": "right where named",
    "pooled_area_right_{origin}": "pooled over a request's answer",
    "pooled_area_right_surest_40_{origin}": "the same, surest 40% of requests",
    "labeller_on_answer_{origin}": "for comparison: the labeller, given the text of the same answer",
}


def build_card(
    config: RunConfig,
    figures: dict[str, Any],
    training: dict[str, Any],
    data: dict[str, Any],
    examples: list[dict[str, str]],
) -> dict[str, Any]:
    """Return the card as JSON-ready values."""
    return {
        "name": config.name,
        "model": config.model_name,
        "model_licence": config.model_licence,
        "layer": config.layer,
        "candidates": config.evaluation.candidates,
        "figures": figures,
        "training": training,
        "data": data,
        "examples": examples,
        "fve": "1 - |u-v|^2 / baseline on unit vectors; baseline = 1 - |mean u|^2 over the calibration set",
        "beyond_token": "1 - (1 - FVE) / (1 - FVE of the token's mean), over all rows together",
        "notes": list(config.notes),
        "intervals": "95% bootstrap over whole chats, Wilson for shares of requests",
    }


def write_card(
    card: dict[str, Any], config: RunConfig, target: Path, beside: dict[str, Any] | None = None
) -> None:
    """Write card.json and the model card README.md."""
    (target / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    (target / "README.md").write_text(render(card, config, beside))


def load_beside(config: RunConfig, folder: Path) -> dict[str, Any] | None:
    """Return the card to compare with, if the run file names one; `folder` is the run file's."""
    if config.beside is None:
        return None
    return dict(json.loads((folder / config.beside.card).read_text()))


def render(card: dict[str, Any], config: RunConfig, beside: dict[str, Any] | None = None) -> str:
    """Return the model card as Markdown; another run's card `beside` gets its own column."""
    tables = _Tables(card["figures"], beside["figures"] if beside else None, card["candidates"])
    title = f" {config.beside.title} |" if config.beside and beside else ""
    return _TEMPLATE.format(
        **{name: card[name] for name in ("name", "model", "model_licence", "layer", "fve", "intervals")},
        parts=_CARD_ALONE if config.card else _PARTS,
        calibration="" if config.card else _CALIBRATION,
        beyond_token=card["beyond_token"],
        beside=title,
        rule="---|" if title else "",
        round_trip=tables.rows("round_trip", _ROUND_TRIP),
        reconstructor=tables.rows("reconstructor", _RECONSTRUCTOR),
        verbalizer=tables.rows("verbalizer", _VERBALIZER),
        themes="\n".join(
            f"| {origin_title} | | |{' |' if title else ''}\n{tables.rows('themes', _labels_of(origin))}"
            for origin, origin_title in _ORIGINS.items()
        ),
        kinds=tables.kinds(),
        examples="\n".join(
            f"- `{_line(one['words'])}`  \n  -> {_line(one['reading'])}" for one in card["examples"]
        ),
        chats=card["data"]["chats"],
        vectors=card["data"]["train"],
        temperature=config.chats.temperature,
        costs="\n".join(
            f"- {name}: {cost['examples']} examples, {cost['minutes']:.1f} minutes"
            for name, cost in card["training"].items()
        ),
        sources="\n".join(
            f"| `{source.wheel}` ({source.licence}) | `{source.member}` | {source.origin} |"
            f" up to {source.count} |"
            for source in config.prompts.sources
        ),
        own=config.prompts.own,
        machine=config.machine,
        recipe=config.recipe,
        notes="\n".join(f"- {note}" for note in config.notes),
    )


class _Tables(NamedTuple):
    """Renders rows of figures, with an extra column for another run's figures."""

    figures: dict[str, Any]
    beside: dict[str, Any] | None
    candidates: int

    def rows(self, section: str, labels: dict[str, str]) -> str:
        """Return a section's rows in the order of `labels`."""
        own = self.figures[section]
        return "\n".join(
            f"| {label.format(n=self.candidates)} | {_value(own[name])} | {own[name]['n']} |"
            + self._other(section, name, lambda figure: f"{_value(figure)} ({figure['n']})")
            for name, label in labels.items()
            if name in own
        )

    def kinds(self) -> str:
        """Return one row per kind."""
        return "\n".join(
            f"| {kind} | {figures['requests_with']} of {figures['requests']} | {figures['auroc']:.3f} |"
            f" {_value(figures['recall_at_1pct_fpr'])} |"
            + self._other(
                "kinds",
                kind,
                lambda other: f"{other['auroc']:.3f}, {_value(other['recall_at_1pct_fpr'])}",
            )
            for kind, figures in self.figures["kinds"].items()
        )

    def _other(self, section: str, name: str, shown: Callable[[dict[str, Any]], str]) -> str:
        if self.beside is None:
            return ""
        figure = self.beside[section].get(name)
        return f" {shown(figure) if figure else '-'} |"


def _labels_of(origin: str) -> dict[str, str]:
    return {name.format(origin=origin): label for name, label in _THEMES.items()}


def _value(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def _line(text: str) -> str:
    return text.replace("\n", "\\n").replace("`", "'")


_PARTS = """\
LoRA adapters, a projector, a label head and the reconstructor's head, all float16;
`workers.nla.checkpoint.assemble` merges the adapters into the base model."""
_CARD_ALONE = """\
Only the card stands here: the base model's licence binds whoever passes on weights made from it. With the
base model, `subtext train --config run.yaml` makes the pair."""
_CALIBRATION = """\
 `calibration.json` holds the same round trip on the calibration chats, read by the
worker's own engine, with the threshold of `verified` for every position class and what its nulls reach.
`anomaly.safetensors` is what benign chats look like at the layer: the reference of the detector."""
_TEMPLATE = """\
# {name}: an NLA pair for {model}, layer {layer}

{parts}
Base model: {model} ({model_licence}). Everything else here: Apache-2.0.

## What it says
`<Register> about <area> (<topic>), touching on <kinds>. Expects "<token>". Reads "<words> <read token>"`

The first sentence is the label head's: areas, topics and kinds are named only from a threshold on that was
set on calibration chats; below it the pair abstains. The rest is the verbalizer's. The read token is known
from the record and closes the quote; figures beyond the token give no credit for it.

What held-out vectors hold, and the likeliest reading of each:

{examples}

## Measured on held-out chats
FVE: {fve}. Beyond the token: {beyond_token}. Intervals: {intervals}.

| vector to text to vector, writing freely | value [95%] | n |{beside}
|---|---|---|{rule}
{round_trip}

| reconstructor | value [95%] | n |{beside}
|---|---|---|{rule}
{reconstructor}

| verbalizer, teacher-forced | value [95%] | n |{beside}
|---|---|---|{rule}
{verbalizer}

| themes | value [95%] | n |{beside}
|---|---|---|{rule}
{themes}

| kind, pooled over a request | requests with it | AUROC | recall at 1% false positives |{beside}
|---|---|---|---|{rule}
{kinds}

Kinds with fewer than 20 held-out requests are left out, and a kind with fewer than 20 calibration
positions is never named.{calibration}

{notes}

## What it can and cannot do
- It says what a text is about where that is clear, what the model expects next, and recalls some of the
  words before the read token. The nearest words are often right; farther ones are mostly invented in the
  same vein.
- It does not describe intentions, plans, feelings or facts, and was never trained to.
- A reading is a hypothesis. `verified` tells that the text carries the vector better than 95% of other
  vectors' readings with the same token, and better than the token's mean; it never tells that a statement
  in it is true.
- It knows short chats of this one model at this one layer. Other formats, long contexts and the
  first ten tokens were not measured.

## Training
{chats} chats, answered by the model itself at temperature {temperature}; {vectors} training vectors;
whole chats are held out. Cost on {machine}:

{costs}

| wheel (declared licence) | file | origin | prompts |
|---|---|---|---|
{sources}
| own | `{own}` | sets | all |

The prompts' texts are not shipped, and examples above show none that a person once typed. The licences are
those that the packages declare; data sets inside them keep their authors' terms. Reproduce with
`{recipe}`.
"""


def main(argv: list[str]) -> int:
    """Render a pair's README.md again, and update the notes in its card.json."""
    parser = argparse.ArgumentParser(prog="workers.training.measure.card", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True, help="run file of the pair")
    parser.add_argument("--pair", type=Path, required=True, help="folder with its card.json")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config)
    card = json.loads((arguments.pair / "card.json").read_text()) | {"notes": list(config.notes)}
    write_card(card, config, arguments.pair, load_beside(config, arguments.config.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
