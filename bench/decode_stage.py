"""The loaded models of bench-decode: one pair, its engine, and Hugging Face's copy of the AV."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import decode_report as report
from bench.decode_hugging_face import HuggingFace
from bench.decode_report import Mode, Prefill, Run
from workers.calibrate.summary import Vectors
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import EngineSettings, Explanation


class Load(NamedTuple):
    """One round's vectors, with their prompts and readings, which are the same in every run."""

    vectors: Vectors
    prompts: list[dict[str, Any]]
    """The engine's inputs."""
    answers: list[list[int]]
    """Token ids of the greedy readings, end tokens included."""
    texts: dict[Mode, list[list[str]]]
    lengths: dict[Mode, list[int]]
    """Mean number of output tokens of each vector's readings."""
    prefills: list[Prefill]


class Recorder:
    """Wraps an engine and keeps the last prompts and outputs."""

    def __init__(self, engine: Any) -> None:
        """Wrap an engine."""
        self.engine = engine
        self.llm_engine = engine.llm_engine
        self.prompts: list[dict[str, Any]] = []
        self.outputs: list[Any] = []
        self.sampling: Any = None

    def generate(self, prompts: list[dict[str, Any]], sampling: Any, **options: Any) -> list[Any]:
        """Forward the call to the engine and record it."""
        self.prompts, self.sampling = prompts, sampling
        self.outputs = self.engine.generate(prompts, sampling, **options)
        return self.outputs


class Stage:
    """Loads all models once; every arm starts with only the shared prefix in the cache."""

    def __init__(self, folder: Path, settings: EngineSettings, spare: Vectors) -> None:
        """Load the models; `spare` is one vector, used in no round, to warm the cache."""
        import torch
        import vllm

        # Speed does not depend on the calibration, which may be for another number of candidates.
        self.decoder = NlaDecoder.open(folder, settings, calibrating=True)
        verbalizer = self.decoder.verbalizer
        self._recorder = Recorder(verbalizer._engine)  # noqa: SLF001 - its outputs tell lengths and cache hits
        verbalizer._engine = self._recorder  # noqa: SLF001 - as above
        config = self._recorder.llm_engine.vllm_config
        self.block = int(config.cache_config.block_size)
        self.threads = int(torch.get_num_threads())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.candidates = settings.candidates
        self._vllm = vllm
        self._spare = spare
        self._seed = settings.seed
        self._temperature = settings.temperature
        special = np.array(self.decoder.tokenizer.all_special_ids, np.int64)
        self._ordinary = np.setdiff1d(np.arange(len(self.decoder.tokenizer), dtype=np.int64), special)
        self._hugging_face = HuggingFace(
            folder / "av",
            tokenizer=self.decoder.tokenizer,
            dtype=config.model_config.dtype,
            device=self.device,
            end=verbalizer.injector.prompt.end,
            new_tokens=verbalizer._new_tokens,  # noqa: SLF001 - Hugging Face must stop there, too
        )

    def prepare(self, vectors: Vectors) -> Load:
        """Decode a round's vectors in both modes, untimed."""
        texts: dict[Mode, list[list[str]]] = {}
        outputs: dict[Mode, list[Any]] = {}
        for mode in report.MODES:
            self._forget(self._read_spare)
            texts[mode] = [[candidate.text for candidate in one] for one in self._verbalize(vectors, mode)]
            outputs[mode] = self._recorder.outputs
        # Both modes have the same prompts; prefill can be attributed only with a single reading.
        prompts, single = self._recorder.prompts, outputs["greedy"]
        return Load(
            vectors,
            prompts,
            answers=[list(one.outputs[0].token_ids) for one in single],
            texts=texts,
            lengths={mode: [mean_length(one) for one in each] for mode, each in outputs.items()},
            prefills=[prefill(*pair) for pair in zip(prompts, single, strict=True)],
        )

    def runs(self, load: Load, rng: np.random.Generator) -> dict[str, Callable[[], Run]]:
        """Return a round's arms by name, as functions to time."""
        arms: dict[str, Callable[[], Run]] = {}
        for mode in report.MODES:
            arms[report.ours(mode)] = partial(self._run_ours, load, mode)
            arms[report.plain(mode)] = partial(self._run_plain, load, mode, rng)
            arms[report.rebuilding(mode)] = partial(self._run_rebuilding, load, mode)
        for batch in report.BATCHES:
            arms[report.hugging_face(batch)] = partial(self._run_hugging_face, load, batch)
        return arms

    def same_answers(self, load: Load) -> float:
        """Return the share of greedy answers equal to Hugging Face's."""
        answers = self._hugging_face.generate(load.prompts, batch=max(report.BATCHES))
        return float(np.mean([mine == theirs for mine, theirs in zip(load.answers, answers, strict=True)]))

    def close(self) -> None:
        """Release the engine."""
        self.decoder.verbalizer._engine = self._recorder.engine  # noqa: SLF001 - put back what was taken
        self.decoder.close()

    def _run_ours(self, load: Load, mode: Mode) -> Run:
        self._forget(self._read_spare)
        start = time.perf_counter()
        explanations = self._verbalize(load.vectors, mode)
        seconds = time.perf_counter() - start
        return Run(seconds, sum(map(len, explanations)), _count(self._recorder.outputs))

    def _run_plain(self, load: Load, mode: Mode, rng: np.random.Generator) -> Run:
        prompts = [{"prompt_token_ids": self._random_words(one, rng)} for one in load.prompts]
        spare = [{"prompt_token_ids": self._random_words(load.prompts[0], rng)}]
        sampling = [self._plain_sampling(mode, length) for length in load.lengths[mode]]
        engine = self._recorder.engine
        self._forget(lambda: engine.generate(spare, sampling[:1], use_tqdm=False))
        start = time.perf_counter()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        return Run(seconds, sum(len(one.outputs) for one in outputs), _count(outputs))

    def _run_rebuilding(self, load: Load, mode: Mode) -> Run:
        texts = [text for of_one in load.texts[mode] for text in of_one]
        each = len(load.texts[mode][0])
        token_ids = np.repeat(load.vectors.given.token_ids, each).tolist()
        start = time.perf_counter()
        self.decoder.reconstructor.rebuild(texts, token_ids)
        return Run(time.perf_counter() - start, len(texts), 0)

    def _run_hugging_face(self, load: Load, batch: int) -> Run:
        start = time.perf_counter()
        answers = self._hugging_face.generate(load.prompts, batch=batch)
        return Run(time.perf_counter() - start, len(answers), sum(map(len, answers)))

    def _verbalize(self, vectors: Vectors, mode: Mode) -> list[list[Explanation]]:
        n = 1 if mode == "greedy" else self.candidates
        return self.decoder.verbalizer.verbalize(vectors.rows, vectors.given, n)

    def _forget(self, warm: Callable[[], object]) -> None:
        """Reset the prefix cache, which would otherwise hold the prompts from the previous run."""
        self._recorder.engine.reset_prefix_cache()
        warm()

    def _read_spare(self) -> None:
        self._verbalize(self._spare, "greedy")

    def _random_words(self, prompt: dict[str, Any], rng: np.random.Generator) -> list[int]:
        before = shared(prompt)
        ids = prompt["prompt_token_ids"]
        return [*ids[:before], *rng.choice(self._ordinary, len(ids) - before).tolist()]

    def _plain_sampling(self, mode: Mode, length: int) -> Any:
        n = 1 if mode == "greedy" else self.candidates
        return self._vllm.SamplingParams(
            n=n,
            temperature=self._temperature if n > 1 else 0.0,
            seed=self._seed,
            max_tokens=length,
            ignore_eos=True,
            detokenize=self._recorder.sampling.detokenize,
        )


def shared(prompt: dict[str, Any]) -> int:
    """Return the number of tokens before the injection."""
    return list(prompt["prompt_is_token_ids"]).index(False)


def prefill(prompt: dict[str, Any], output: Any) -> Prefill:
    """Return the prefill of a prompt."""
    return Prefill(len(prompt["prompt_token_ids"]), shared(prompt), int(output.num_cached_tokens or 0))


def mean_length(output: Any) -> int:
    """Return the mean number of tokens in a prompt's answers, rounded."""
    return round(float(np.mean([len(answer.token_ids) for answer in output.outputs])))


def _count(outputs: Sequence[Any]) -> int:
    return sum(len(answer.token_ids) for one in outputs for answer in one.outputs)
