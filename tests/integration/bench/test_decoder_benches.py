"""Both benchmarks of the decoder on a toy pair: they run through, and their last line is the JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support import ROOT
from tests.support.nla import toy
from workers.nla.engine.verbalizer import prepare_environment
from workers.training.data.activations import ActivationReader
from workers.training.data.dataset import Samples

CHATS, LENGTH, FIRST, PROMPT = 24, 26, 12, 18
TAXONOMY = """
version: 1
topic_floor: 0.1
topics: {headaches: pain, contracts: agreements, law: courts}
areas: {medicine: [headaches], law: [contracts, law]}
registers: [{name: a question, pattern: '[?]'}]
kinds: [{name: self-harm, pattern: harm}, {name: fraud, pattern: fraud}]
"""
prepare_environment()
pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def pair(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an audited model `base`, its pair `own`, and what its vectors were read in."""
    folder = tmp_path_factory.mktemp("pair")
    base = toy.write_base(folder / "base", model_dir)
    toy.write_own_pair(folder / "own", base)
    (folder / "taxonomy.yaml").write_text(TAXONOMY)
    write_data(folder)
    return folder


def write_data(folder: Path) -> None:
    """Write chats of random words and their vectors, as the trainer does."""
    rng = np.random.default_rng(0)
    chats = [rng.integers(1000, 20000, LENGTH).tolist() for _ in range(CHATS)]
    lines = [{"origin": "sets", "prompt_tokens": PROMPT, "tokens": tokens} for tokens in chats]
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    places = list(range(FIRST, LENGTH))
    read = ActivationReader(str(folder / "base"), layer=toy.LAYER).read(chats, [places] * CHATS)
    rows = [(document, place) for document in range(CHATS) for place in places]
    n = len(rows)
    samples = Samples(
        vectors=np.concatenate([one.vectors for one in read]),
        context=np.array([chats[document][place - 11 : place + 1] for document, place in rows], np.int64),
        next_tokens=np.concatenate([one.next_tokens for one in read]),
        areas=rng.dirichlet((1.0, 1.0), n).astype(np.float32),
        topic=rng.integers(4, size=n),
        register=np.zeros(n, np.int64),
        kinds=rng.integers(4, size=n),
        positions=np.array([place for _, place in rows], np.int64),
        is_answer=np.array([place >= PROMPT for _, place in rows], np.int64),
        is_real=np.array([document % 2 for document, _ in rows], np.int64),
        documents=np.array([document for document, _ in rows], np.int64),
    )
    for name, member in (("train", samples.documents < 12), ("held_out", samples.documents >= 12)):
        samples.take(member).save(folder / f"{name}.safetensors")
    given = {"tokens": samples.tokens, "phases": samples.is_answer}
    save_file(
        {"vectors": samples.vectors, **{name: np.ascontiguousarray(one) for name, one in given.items()}},
        folder / "vectors.safetensors",
    )


def run(*command: str) -> tuple[int, str, dict[str, Any]]:
    """Return the exit status, all of stdout and its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode in {0, 1}, done.stderr[-3000:]
    return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_bench_fidelity_measures_everything_that_a_toy_pair_can_show(pair: Path) -> None:
    options = [
        "--vectors",
        "held_out.safetensors",
        "--train",
        "train.safetensors",
        "--chats",
        "chats.jsonl",
    ]
    options += ["--model", "base", "--taxonomy", "taxonomy.yaml", "--decoder-dir", "own"]
    paths = [option if option.startswith("--") else str(pair / option) for option in options]
    sizes = ["--limit", "24", "--patches", "6", "--candidates", "2", "--bootstrap-rounds", "50"]

    status, shown, found = run("bench.fidelity", *paths, *sizes)

    figures = found["sources"]["held-out documents"]
    assert status == 1
    assert found["ok"] is False
    assert found["is_calibrated"] is False
    assert "MISS" in shown
    # The AR is the model itself, so the true words say much, whatever the toy AV writes.
    assert figures["true_text_fve"]["value"] > figures["shuffled_true_text_fve"]["value"]
    assert figures["best_fve"]["value"] >= figures["one_sampled_fve"]["value"]
    for figure in ("patch_removed_best", "probe_next_right", "probe_area_right_real", "quote_best/content"):
        assert figures[figure]["n"] > 0
    assert {bar["figure"] for bar in found["bars"] if bar["found"] is None} == {
        *("kind_auroc", "kind_recall", "pooled_area_to_labeller_sets", "pooled_area_to_labeller_real"),
        *("verified_same_token", "verified_random", "verified_layer_mean"),
    }


def test_bench_decode_reports_every_arm(pair: Path) -> None:
    _, shown, found = run(
        "bench.decode",
        *("--decoder-dir", str(pair / "own")),
        *("--vectors", str(pair / "vectors.safetensors")),
        *("--rounds", "1", "--vectors-per-round", "4", "--candidates", "2"),
    )

    assert len(found["arms"]) == 9
    assert found["same_answers"] >= 0.5
    assert "token prompts, candidates" in shown
