import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from bench import decode, decode_report
from bench.decode_hugging_face import cut
from bench.decode_report import ARMS, BATCHES, Prefill, Run, Setting, best_batch, document, table
from bench.decode_stage import Recorder, mean_length, prefill, shared
from bench.pair import synthetic_vectors
from tests.support.nla import toy

SETTING = Setting(
    decoder="toy",
    vectors="synthetic",
    candidates=4,
    block=32,
    threads=2,
    device="cpu",
    same_answers=0.95,
)
PREFILLS = [Prefill(prompt=40, before=6, cached=0), Prefill(prompt=60, before=6, cached=32)]


def rounds(**seconds: float) -> list[dict[str, Run]]:
    """Rounds of 64 readings that take a second in every arm but those named by their first letters."""
    usual = dict.fromkeys(ARMS, 1.0)
    usual |= {decode_report.hugging_face(batch): 2.5 for batch in BATCHES}
    usual |= {decode_report.rebuilding(mode): 0.2 for mode in decode_report.MODES}
    usual |= {arm: value for name, value in seconds.items() for arm in ARMS if arm.startswith(name)}
    return [{arm: Run(value, 64, 1600) for arm, value in usual.items()}] * 5


@pytest.mark.parametrize(
    ("seconds", "missed"),
    [
        ({}, None),
        ({"Hugging": 1.9}, "Hugging Face"),
        ({"token": 0.85}, "token prompts"),
        ({"AR": 0.26}, "its time to the AV's"),
    ],
)
def test_a_missed_bar_is_named_with_its_figure(seconds: dict[str, float], missed: str | None) -> None:
    found = document(rounds(**seconds), PREFILLS, SETTING)

    assert json.loads(json.dumps(found)) == found
    assert found["ok"] is (missed is None)
    for bar in found["bars"]:
        assert bar["passed"] is not (missed is not None and missed in bar["figure"])
    assert table(found).count("MISS") == sum(not bar["passed"] for bar in found["bars"])


def test_hugging_face_is_compared_at_its_best_batch() -> None:
    measured = [{**one, "Hugging Face, batch 32": Run(1.5, 64, 1600)} for one in rounds()]

    assert best_batch(measured) == 32
    assert document(measured, PREFILLS, SETTING)["bars"][0]["median"] == pytest.approx(1.5)


def test_prefill_is_judged_by_the_reading_that_computed_most_beyond_the_injection() -> None:
    assert [one.computed for one in PREFILLS] == [40, 28]
    assert [one.excess for one in PREFILLS] == [6, -26]

    whole = [*PREFILLS, Prefill(prompt=80, before=40, cached=0)]
    bars = document(rounds(), whole, SETTING)["bars"]

    assert (bars[-1]["median"], bars[-1]["passed"]) == (40.0, False)


def test_every_round_has_its_own_order_of_all_arms() -> None:
    orders = [decode.turned(ARMS, number) for number in range(5)]

    assert all(sorted(order) == sorted(ARMS) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    assert decode.turned(ARMS, 3) == orders[3]


def test_rounds_read_different_vectors_while_there_are_any() -> None:
    apart = decode.portions(100, rounds=5, size=8)
    again = decode.portions(10, rounds=5, size=8)

    assert len({int(row) for rows in apart for row in rows}) == 40
    assert [len(rows) for rows in again] == [8] * 5
    assert {int(row) for rows in again for row in rows} == set(range(10))


PROMPT = {"prompt_token_ids": [5, 6, 9, 9, 7], "prompt_is_token_ids": [True, True, False, False, True]}


def test_what_stands_before_the_injection_is_shared() -> None:
    assert shared(PROMPT) == 2
    assert prefill(PROMPT, SimpleNamespace(num_cached_tokens=None)) == Prefill(5, 2, 0)


def test_an_answer_ends_with_its_end_and_may_have_none() -> None:
    assert cut([4, 5, 0, 0], 0) == [4, 5, 0]
    assert cut([4, 5], 0) == [4, 5]


def test_the_recorder_keeps_what_the_engine_was_asked_and_answered() -> None:
    answers = [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1, 2]), SimpleNamespace(token_ids=[1])])]
    engine: Any = SimpleNamespace(llm_engine="inner", generate=lambda *_, **__: answers)
    recorder = Recorder(engine)

    assert recorder.generate([PROMPT], "sampling", use_tqdm=False) is answers
    assert (recorder.prompts, recorder.outputs) == ([PROMPT], answers)
    assert mean_length(answers[0]) == 2


def test_synthetic_vectors_lie_around_the_mean_of_the_projector(tmp_path: Path, model_dir: Path) -> None:
    toy.write_meta(tmp_path, toy.own_meta("av"))
    toy.write_stages(tmp_path)
    toy.copy_tokenizer(model_dir, tmp_path)

    vectors = synthetic_vectors(tmp_path, count=400)

    mean = load_file(tmp_path / "projector.safetensors")["mean"]
    assert vectors.rows.shape == (400, toy.D_MODEL)
    assert float(vectors.rows.std(axis=0).mean()) == pytest.approx(toy.SCALE, rel=0.05)
    assert float(np.abs(vectors.rows.mean(axis=0) - mean).max()) < 6 * toy.SCALE / 400**0.5
    assert len(np.unique(vectors.documents)) == 400
    assert vectors.tokens is not None
    assert vectors.tokens.min() > 16, "special tokens have the first ids of SmolLM2"
