"""The card's text: another run's figures get a column of their own."""

import json
from pathlib import Path

import yaml

from workers.training.config import load_config
from workers.training.measure import card

PAIR = Path("deploy/decoders/smollm2-135m-l23")


def test_the_shipped_card_is_what_its_run_file_and_figures_say() -> None:
    config = load_config(PAIR / "run-gpu.yaml")
    found = json.loads((PAIR / "card.json").read_text())

    assert found["notes"] == list(config.notes)
    assert card.render(found, config, card.load_beside(config, PAIR)) == (PAIR / "README.md").read_text()


def test_every_row_has_a_cell_for_the_run_beside_it() -> None:
    config = load_config(PAIR / "run-gpu.yaml")
    found, beside = (json.loads((PAIR / name).read_text()) for name in ("card.json", "card-cpu.json"))
    del beside["figures"]["kinds"]["code"]

    text = card.render(found, config, beside)

    tables = text.partition("## Measured")[2].partition("## What it can")[0]
    blocks = [block for block in tables.split("\n\n") if block.startswith("| ")]
    widths = [{line.count("|") for line in block.splitlines()} for block in blocks]
    assert widths == [{5}, {5}, {5}, {5}, {6}]
    code = next(line for line in blocks[-1].splitlines() if line.startswith("| code "))
    assert code.endswith("| - |")


def test_a_run_without_another_beside_it_has_no_such_column(tmp_path: Path) -> None:
    settings = yaml.safe_load((PAIR / "run.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "card.json").write_text((PAIR / "card-cpu.json").read_text())

    code = card.main(["--config", str(tmp_path / "run.yaml"), "--pair", str(tmp_path)])

    text = (tmp_path / "README.md").read_text()
    assert code == 0
    assert "| vector to text to vector, writing freely | value [95%] | n |\n" in text
    assert "`subtext train --config run.yaml`" in text
    assert json.loads((tmp_path / "card.json").read_text())["notes"] == settings["notes"]
