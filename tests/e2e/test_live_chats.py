"""Live chats as bench.live_chats captures them: through real vLLM, sidecar and Valkey."""

from pathlib import Path

import pytest

from bench.live_chats import SAME, read
from bench.live_chats_join import join
from bench.live_chats_prompts import to_ask
from bench.live_chats_server import Sampling, capture
from deploy.demo.prompts import load_prompts
from deploy.local import launch
from deploy.local.ports import HOST
from tests.e2e.pipeline import SERVED_MODEL, Pipeline

pytestmark = pytest.mark.vllm
TAIL = 12


def test_captured_rows_are_what_hugging_face_computes_of_the_same_chats(
    pipeline: Pipeline, model_dir: Path
) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    asks = [to_ask(prompt.text, tokenizer, is_real=False) for prompt in load_prompts()[:4]]
    redis_url = f"redis://{HOST}:{pipeline.plan.ports.valkey}/0"

    captured = capture(
        pipeline.openai_url, redis_url, asks, Sampling(concurrency=2, max_tokens=24, temperature=0.7)
    )
    joined = join(
        captured.records, captured.chats, model=SERVED_MODEL, layer=launch.LAYER, tail_tokens=TAIL
    )
    samples, cosines = read(joined, model_dir, layer=launch.LAYER, tail_tokens=TAIL)

    assert len(joined.chats) == len(asks)
    assert cosines.min() > SAME
    assert set(samples.is_answer.tolist()) == {0, 1}
