"""Capture live chats that were not trained on, for ``make bench-fidelity ARGS="--live FILE"``.

Starts the demo's audited vLLM server with plugin, sidecar and Valkey, sends prompts like the demo's
traffic, and writes every captured row with its context, the model's next tokens and the labeller's labels,
in the trainer's format. See docs/benchmarks.md.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from redis import RedisError
from rich.console import Console

from bench import live_chats_server as server
from bench import pair
from bench.live_chats_join import JoinedChats, JoinError, join
from bench.live_chats_prompts import Ask, held_out, to_ask, unseen
from deploy.demo.pipeline import can_compile
from deploy.demo.prompts import load_prompts
from deploy.local import launch
from deploy.local.home import HomeInUseError, open_home
from deploy.local.model import MODEL_NAME
from deploy.local.ports import HOST, Ports, choose_ports
from deploy.local.process import ProcessDiedError
from deploy.local.progress import Reporter
from deploy.local.stack import Stack, StartTimeoutError
from deploy.local.terminal import plain
from workers.nla import fidelity
from workers.training.config import RunConfig, load_config
from workers.training.data import activations, collect, lines
from workers.training.data.dataset import Samples

SAME: Final = 0.99
"""Smallest cosine to Hugging Face's vector of the same position; 0.9999 is usual in float32."""
_TOGETHER: Final = 16
_FAILURES: Final = (
    server.ServerError,
    JoinError,
    RedisError,
    HomeInUseError,
    ProcessDiedError,
    StartTimeoutError,
    FileNotFoundError,
)


def main(argv: Sequence[str]) -> int:
    """Capture and write; return 0 on success, 1 if rows do not match their chats, 2 on failure.

    An interrupted run returns 130.
    """
    options = parse_options(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=True, soft_wrap=True)
    try:
        document = _run(options, Reporter(console, time.time()))
    except _FAILURES as failure:
        said = plain(f"{type(failure).__name__}: {failure}")  # it quotes logs
        console.print(said, style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written", markup=False)
        return 130
    for name, value in document.items():
        print(f"{name}: {value}")
    print(json.dumps(document))
    return 0 if document["ok"] else 1


def _run(options: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    import transformers

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config, model_dir = load_config(options.config), pair.base_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    asks = choose(options, config, tokenizer)
    with open_home(pair.state_dir()) as home, Stack(home.logs_dir, reporter) as stack:
        plan = launch.LaunchPlan(
            home=home,
            ports=choose_ports(Ports()),
            model_dir=home.models_dir / MODEL_NAME,
            decoder_dir=home.decoders_dir,
            database_url="",
            threads=len(os.sched_getaffinity(0)),
            is_eager=options.eager or not can_compile(),
        )
        server.start(stack, plan)
        sampling = server.Sampling(
            concurrency=options.concurrency, max_tokens=options.max_tokens, temperature=options.temperature
        )
        urls = f"http://{HOST}:{plan.ports.openai}/v1", f"redis://{HOST}:{plan.ports.valkey}/0"
        with reporter.step(f"answering {len(asks)} prompts"):
            captured = server.capture(*urls, asks, sampling)
    # The stack has ended, so the server's memory is free for the steps below.
    joined = join(
        captured.records,
        captured.chats,
        model=MODEL_NAME,
        layer=launch.LAYER,
        tail_tokens=config.targets.tail_tokens,
    )
    if not joined.chats:
        raise server.ServerError("nothing was captured; see the logs of vllm and sidecar")
    with reporter.step("asking Hugging Face for the next tokens"):
        samples, cosines = read(
            joined, model_dir, layer=launch.LAYER, tail_tokens=config.targets.tail_tokens
        )
    with reporter.step("labelling"):
        samples = label(samples, joined, config, options.config.parent, tokenizer)
    samples.save(options.out)
    return {
        "ok": bool(cosines.min() >= SAME),
        "out": str(options.out),
        "requests": len(asks),
        "requests_with_rows": len(joined.chats),
        "rows": len(samples),
        "rows_of_answers": int(samples.is_answer.sum()),
        "rows_of_real_prompts": int(samples.is_real.sum()),
        "left_out": {**joined.left_out, "no record": captured.unreadable},
        "cosine_to_hugging_face": {"least": float(cosines.min()), "median": float(np.median(cosines))},
        "layer": launch.LAYER,
    }


def choose(options: argparse.Namespace, config: RunConfig, tokenizer: Any) -> list[Ask]:
    """Return the demo's prompts, then a run's held-out prompts in random order, up to the limit."""
    asks = [to_ask(prompt.text, tokenizer, is_real=False) for prompt in load_prompts()]
    if options.chats is not None:
        chats = lines.read_lines(options.chats)
        others = held_out(chats, tokenizer, config.activations)
        random.Random(options.seed).shuffle(others)  # noqa: S311 - a choice of data, not a secret
        asks = unseen([*asks, *others], chats, config.activations)
    return asks[: options.requests]


def read(
    joined: JoinedChats, model_dir: Path, *, layer: int, tail_tokens: int
) -> tuple[Samples, NDArray[np.float64]]:
    """Return the rows without labels, and each row's cosine to Hugging Face's vector, (n,)."""
    reader = activations.ActivationReader(str(model_dir), layer=layer)
    parts, cosines = [], []
    for start in range(0, len(joined.chats), _TOGETHER):
        chats = joined.chats[start : start + _TOGETHER]
        own = reader.read([chat.tokens for chat in chats], [chat.chosen for chat in chats])
        for chat, vectors, reading in zip(chats, joined.vectors[start:], own, strict=False):
            cosines.append(fidelity.cosine(vectors, reading.vectors))
            live = activations.ChatReading(vectors, reading.next_tokens)
            parts.append(collect.to_samples(chat, live, tail_tokens=tail_tokens))
    return Samples.join(parts), np.concatenate(cosines)


def label(
    samples: Samples, joined: JoinedChats, config: RunConfig, folder: Path, tokenizer: Any
) -> Samples:
    """Return the rows with the trainer's labels."""
    from workers.judge.embedder import MiniLmEmbedder
    from workers.training.data.labelling import TextLabelling
    from workers.training.data.labels import Labeller, load_taxonomy

    labeller = Labeller(load_taxonomy(folder / config.targets.taxonomy), MiniLmEmbedder())
    rows = [{"tokens": chat.tokens, "prompt_tokens": chat.prompt_tokens} for chat in joined.chats]
    labels = TextLabelling(labeller, tokenizer, rows).label("held_out", joined.chats)
    return dataclasses.replace(samples, **labels._asdict())


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits on invalid options."""
    parser = argparse.ArgumentParser(prog="python -m bench.live_chats", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument(
        "--chats", type=Path, help="chats.jsonl of a run, whose held-out prompts are sent too"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=pair.RUN_FILE,
        help="run file of that run: splits, context length and taxonomy (default: the demo's decoder's)",
    )
    parser.add_argument("--requests", type=pair.positive, default=400, help="at most (default %(default)s)")
    parser.add_argument("--concurrency", type=pair.positive, default=5)
    parser.add_argument("--max-tokens", type=pair.positive, default=48, help="of an answer")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument(
        "--seed", type=int, default=0, help="which held-out prompts, where not all are sent"
    )
    parser.add_argument("--eager", action="store_true", help="start vLLM without torch.compile")
    options = parser.parse_args(list(argv))
    for file in (options.config, options.chats):
        if file is not None and not file.exists():
            parser.error(f"{file}: there is no such file")
    return options


def _interrupt(_signum: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
