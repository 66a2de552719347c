"""Gemma 3, whose classes in vLLM have no auxiliary hidden states: our stand-in, and Transformers' code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.vllm.models import STAND_INS
from tests.integration.sidecar.plugin.gemma import ensure_gemma
from tests.integration.sidecar.plugin.vllm_source import Source, releases, source_of
from tests.support import ROOT
from tests.support.vllm import tiny
from tests.support.vllm.judge import Reference, judge, positions, prompts_of, wanted
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=1, max_rows_per_request=400)
GEMMA_LAYER = 11
# Blocks of Gemma add little to a long residual: next to this layer 0.985 was measured, elsewhere 0.998.
GEMMA_NEIGHBOUR = 0.995
BEGIN_OF_TEXT = 2
TEXTS = (
    "The keeper of the lighthouse had not spoken to anyone since the storm in October, and when the boat",
    "To bake bread without an oven, you first need a heavy pot with a lid, a bag of flour and",
    "There are three reasons why old maps show California as an island. The first",
    "She opened the letter slowly, because the handwriting on it was her own, and it began",
)


def test_rows_of_gemma_3_270m_are_those_of_hugging_face_natively_and_by_the_transformers_backend(
    tmp_path: Path, state_dir: Path
) -> None:
    from transformers import AutoTokenizer

    model = ensure_gemma(state_dir)
    reference = Reference(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    requests = [
        request(number, [BEGIN_OF_TEXT, *tokenizer(text)["input_ids"]], max_tokens=12)
        for number, text in enumerate(TEXTS)
    ]
    engine = {**tiny.ENGINE, "block_size": 128}

    runs = run_jobs(
        tmp_path,
        [
            job(
                model,
                requests,
                subtext={"layer": GEMMA_LAYER},
                policy=EVERY,
                engine={**engine, **implementation},
            )
            for implementation in ({}, {"model_impl": "transformers"})
        ],
    )

    for run in runs:
        judge(run, reference, GEMMA_LAYER, neighbour=GEMMA_NEIGHBOUR)
        assert positions(run) == wanted(run, prompts_of(requests), EVERY)
        assert len(run.records) > len(TEXTS) * 24


def test_the_stand_in_serves_like_the_class_that_it_stands_for_eager_compiled_and_switched_off(
    tmp_path: Path, tiny_gemma3: Path
) -> None:
    requests = [
        request(number, prompt, max_tokens=12, ignore_eos=True)
        for number, prompt in enumerate(tiny.prompts(6))
    ]

    def engine_of(layer: int | None, *, is_eager: bool = True) -> dict[str, Any]:
        subtext = None if layer is None else {"layer": layer}
        engine = {**tiny.ENGINE, "enforce_eager": is_eager}
        return job(tiny_gemma3, requests, subtext=subtext, policy=EVERY, engine=engine)

    vanilla, eager, compiled, off = run_jobs(
        tmp_path, [engine_of(None), engine_of(1), engine_of(1, is_eager=False), engine_of(tiny.LAYERS)]
    )

    assert vanilla.texts == eager.texts == compiled.texts == off.texts
    for run in (eager, compiled):
        judge(run, Reference(tiny_gemma3), 1)
        assert positions(run) == wanted(run, prompts_of(requests), EVERY)
    assert (off.records, off.statuses[-1].reason) == ([], "layer_out_of_range")


def test_with_a_vision_tower_the_stand_in_can_be_captured_and_the_transformers_backend_is_refused() -> None:
    command = [sys.executable, "-m", "tests.integration.sidecar.plugin.vision"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    answer = json.loads(output.splitlines()[-1])
    assert answer.pop("backend_refused").endswith("serve it without --model-impl")
    assert answer == {
        "is_a_stand_in": True,
        "original_can_be_captured": False,
        "stand_in_can_be_captured": True,
        "stand_in_sees": True,
    }


@pytest.fixture(scope="module", params=releases())
def source(request: pytest.FixtureRequest, state_dir: Path) -> Source:
    return source_of(str(request.param), state_dir)


@pytest.mark.parametrize(
    ("path", "name", "fragment"),
    [
        ("gemma3.py", "Gemma3ForCausalLM.__init__", "self.model = Gemma3Model("),
        ("gemma3.py", "Gemma3Model.forward", "hidden_states = self.embed_input_ids(input_ids)"),
        (
            "gemma3.py",
            "Gemma3Model.forward",
            "hidden_states, residual = layer(positions, hidden_states, residual, **kwargs)",
        ),
        (
            "gemma3.py",
            "Gemma3Model.forward",
            "hidden_states, _ = self.norm(hidden_states, residual)\n    return hidden_states",
        ),
        ("gemma3.py", "Gemma3DecoderLayer.forward", "return (hidden_states, residual)"),
        (
            "gemma3_mm.py",
            "Gemma3ForConditionalGeneration.__init__",
            "architectures=['Gemma3ForCausalLM']",
        ),
        (
            "gemma3_mm.py",
            "Gemma3ForConditionalGeneration.forward",
            "hidden_states = self.language_model.model(",
        ),
        ("gemma3_mm.py", "Gemma3ForConditionalGeneration.forward", "return hidden_states"),
        ("registry.py", "_ModelRegistry.register_model", "isinstance(model_cls, str)"),
        ("interfaces.py", "EagleModelMixin._maybe_add_hidden_state", "return aux_hidden_states"),
    ],
)
def test_vllms_gemma_3_is_still_what_the_stand_in_extends(
    source: Source, path: str, name: str, fragment: str
) -> None:
    text = source.text(f"model_executor/models/{path}", name)

    assert fragment in text, f"vLLM {source.version}: {path}: {name} has no {fragment!r}"


@pytest.mark.parametrize(
    ("module", "architecture"),
    [("gemma3", "Gemma3ForCausalLM"), ("gemma3_mm", "Gemma3ForConditionalGeneration")],
)
def test_vllms_own_classes_still_lack_what_the_stand_ins_add(
    source: Source, module: str, architecture: str
) -> None:
    definition = source.text(f"model_executor/models/{module}.py", architecture)

    assert architecture in STAND_INS
    assert definition
    assert "SupportsEagle3" not in definition, f"vLLM {source.version}: {architecture} needs no stand-in"
