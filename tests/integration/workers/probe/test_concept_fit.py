"""`subtext concept fit` on the audited model: from two files of prompts to a matcher."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support import ROOT
from tests.support.nla import toy
from workers.commands import concept
from workers.judge.concepts import load_concepts
from workers.judge.embedder import WordEmbedder
from workers.judge.matching import ConceptMatcher
from workers.judge.probes import load_probe
from workers.training.data.activations import ActivationReader

PROMPTS = ROOT / "deploy" / "probes"
EACH = 20
CONCEPTS = """
version: 2
concepts:
  - name: medical
    version: 1
    description: illness
    severity: info
    matchers: [{probe: {file: medical.safetensors, threshold: 0.5}}]
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A command line without a model, on a few short prompts of each kind."""
    for kind in ("positive", "negative"):
        lines = (PROMPTS / f"medical-{kind}.txt").read_text().splitlines()
        (tmp_path / kind).write_text("\n".join(lines[:EACH]))
    return [
        "fit",
        *("--positive", str(tmp_path / "positive"), "--negative", str(tmp_path / "negative")),
        *("--name", "medical", "--model", "served", "--out", str(tmp_path / "medical.safetensors")),
    ]


@pytest.fixture
def base(model_dir: Path, tmp_path: Path) -> Path:
    """A small random model with the tokenizer of the audited one."""
    return toy.write_base(tmp_path / "base", model_dir)


def test_prompts_of_the_real_model_become_a_matcher(
    arguments: list[str], model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = concept(
        [
            *arguments,
            *("--model-dir", str(model_dir), "--layer", "23"),
            *("--answer-tokens", "0", "--false-positive-rate", "0.1"),
        ]
    )

    captured = capsys.readouterr()
    assert status == 0, captured.err
    told = captured.out.splitlines()
    assert told[0] == "probe medical: served, output of block 23"
    assert any(line.startswith("probe: recall at 0.1 ") and "n 10)" in line for line in told)
    assert any(line.startswith("text classifier, prompts alone: recall at 0.1 ") for line in told)
    probe = load_probe(tmp_path / "medical.safetensors")
    assert told[-1].startswith(f"{tmp_path / 'medical.safetensors'}: digest ")
    assert (probe.model, probe.layer, probe.card["positives"], probe.card["negative_prompts"]) == (
        "served",
        23,
        EACH,
        EACH,
    )
    held_out = probe.card["held_out"]["probe"]
    assert held_out["recall"]["n"] == held_out["positives"] == EACH // 2
    assert held_out["auroc"] > 0.7

    (tmp_path / "concepts.yaml").write_text(CONCEPTS)
    matcher = ConceptMatcher(load_concepts(tmp_path / "concepts.yaml"), WordEmbedder(), {})
    scores = matcher.measure(["", ""], None, last_vectors(model_dir))[:, 0]
    assert scores[0] > scores[1]


def last_vectors(model_dir: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return what the model holds at the end of a prompt about illness and of another one, (2, d_model)."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        for text in ("Which medicine helps against a high fever?", "Which bus goes to the old harbour?")
    ]
    read = ActivationReader(str(model_dir), layer=23).read(chats, [[len(chat) - 1] for chat in chats])
    return np.concatenate([one.vectors for one in read])


def test_the_models_own_answers_and_benign_vectors_are_taken_too(
    arguments: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).standard_normal((160, toy.D_MODEL)).astype(np.float32) + 1
    benign = tmp_path / "benign.safetensors"
    save_file({"vectors": rows, "documents": np.repeat(np.arange(40), 4)}, benign)

    status = concept(
        [
            *arguments,
            *("--model-dir", str(base), "--layer", "1", "--benign", str(benign)),
            *("--answer-tokens", "9", "--decode-stride", "4", "--false-positive-rate", "0.05"),
        ]
    )

    captured = capsys.readouterr()
    assert status == 0, captured.err
    card = load_probe(tmp_path / "medical.safetensors").card
    assert card["benign_requests"] == 40
    # Two positions of each prompt, and of an answer of nine tokens at least one window.
    assert card["positions"] > 160 + 2 * EACH * 3
    assert "text classifier, prompts alone: no recall at 0.05" in captured.out


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["--false-positive-rate", "0.01"], "needs 1 / rate - 1 = 99 held out, so 198 negatives in all"),
        (["--name", "Medical!"], "name: 'Medical!' must be"),
        (["--false-positive-rate", "0.1", "--layer", "2"], "layer: 2 must be one of the model's blocks"),
        (
            ["--false-positive-rate", "0.1", "--prompt-window", "0", "--answer-tokens", "0"],
            "prompt-window: nothing is sampled of",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_fix(
    arguments: list[str],
    base: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    complaint: str,
) -> None:
    given = ["--model-dir", str(base), "--layer", "1", "--answer-tokens", "0"]
    status = concept([*arguments, *given, *changes])

    assert status == 2
    assert complaint in capsys.readouterr().err
    assert not base.with_name("medical.safetensors").exists()
