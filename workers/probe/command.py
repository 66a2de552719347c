"""`subtext concept fit`: fit a probe of a concept on two files of prompts, through the audited model."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workers.judge.probes import ProbeError, save_probe
from workers.nla.errors import CalibrationError

if TYPE_CHECKING:
    from workers.probe.activations import Sampling
    from workers.training.data.chats import Writer

_BAD_USE: Final = 2
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def concept(argv: list[str]) -> int:
    """Work on concepts; `fit` is what there is."""
    arguments = _parse(argv)
    try:
        lines = _fit(arguments)
    except (ProbeError, CalibrationError, ValueError, OSError) as error:
        sys.stderr.write(f"subtext concept fit: {error}\n")
        return _BAD_USE
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _fit(arguments: argparse.Namespace) -> list[str]:
    # Cheap refusals come before loading a model.
    from workers.probe.prompts import load_prompts

    if not _NAME.fullmatch(arguments.name):
        raise ProbeError(f"name: {arguments.name!r} must be 1 to 63 of a-z, 0-9, - and _ after a letter")
    prompts = load_prompts(arguments.positive, arguments.negative)

    from workers.nla.engine.verbalizer import prepare_environment

    prepare_environment()
    import transformers

    from workers.calibrate.measure import load_vectors
    from workers.probe import activations, fit, report
    from workers.training.data.activations import ActivationReader

    benign = [load_vectors(path) for path in arguments.benign]
    rule = fit.Rule(arguments.positions_required, arguments.false_positive_rate)
    fit.check_enough(
        len(prompts.positive),
        len(prompts.negative),
        sum(len(set(one.documents.tolist())) for one in benign),
        rule,
    )
    sampling = activations.Sampling(
        arguments.prompt_window,
        arguments.decode_stride,
        arguments.window,
        arguments.skip_first,
        arguments.answer_tokens,
    )
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(arguments.model_dir, local_files_only=True)
    # Before the reader is loaded, so that the writer's memory is free again.
    sampled = activations.sample(
        [*prompts.positive, *prompts.negative],
        tokenizer,
        _writer(arguments, sampling),
        sampling,
        seed=arguments.seed,
    )
    reader = ActivationReader(str(arguments.model_dir), layer=arguments.layer)
    requests = activations.read(prompts, sampled, reader, benign, log=_log)
    name = fit.Name(arguments.name, arguments.model, arguments.layer)
    fitted = fit.fit(requests, rule, name, seed=arguments.seed)
    card = report.card_of(fitted, requests, rule, sampled=sampling._asdict())
    digest = save_probe(dataclasses.replace(fitted.probe, card=card), arguments.out)
    return [*report.describe(fitted, requests, rule), f"{arguments.out}: digest {digest}"]


def _writer(arguments: argparse.Namespace, sampling: "Sampling") -> "Writer | None":
    from workers.training.data.chats import load_writer

    if not sampling.answer_tokens:
        return None
    _log("loading the model to answer the prompts")
    return load_writer(arguments.engine, str(arguments.model_dir))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="subtext concept", description=concept.__doc__)
    parts = parser.add_subparsers(dest="what", required=True)
    fit = parts.add_parser("fit", help="fit a probe on prompts about a concept and others")
    fit.add_argument(
        "--positive",
        type=Path,
        required=True,
        help='prompts about the concept: one a line, or {"messages": [...]} a line',
    )
    fit.add_argument(
        "--negative", type=Path, required=True, help="prompts of the same kind and length that are not"
    )
    fit.add_argument(
        "--benign",
        type=Path,
        nargs="*",
        default=[],
        help="more negatives: vectors of benign requests at this layer, from `subtext screen collect`",
    )
    fit.add_argument("--name", required=True, help="the probe's, as of a concept")
    fit.add_argument(
        "--model-dir", type=Path, required=True, help="the audited model, as Hugging Face has it"
    )
    fit.add_argument("--model", required=True, help="its served name, as on the records")
    fit.add_argument(
        "--layer", type=int, required=True, help="K: the decoder's, vectors are block K's output"
    )
    fit.add_argument("--out", type=Path, required=True, help="the probe's file, .safetensors")
    fit.add_argument(
        "--false-positive-rate", type=_share, default=0.01, help="of requests, for recall and threshold"
    )
    fit.add_argument("--positions-required", type=_positive, default=2, help="of the concept (default: 2)")
    fit.add_argument(
        "--answer-tokens",
        type=_count,
        default=32,
        help="of the model's own answer, at temperature 1; 0: the prompt alone is read (default: 32)",
    )
    fit.add_argument(
        "--engine",
        choices=("vllm", "transformers"),
        default="transformers",
        help="what writes the answers; vLLM is faster from some hundred prompts on",
    )
    for option, parse, default in (
        ("--prompt-window", _count, 2),
        ("--decode-stride", _positive, 8),
        ("--window", _positive, 2),
        ("--skip-first", _count, 10),
    ):
        fit.add_argument(
            option, type=parse, default=default, help=f"as in the capture policy (default: {default})"
        )
    fit.add_argument("--seed", type=int, default=0, help="of split and answers")
    return parser.parse_args(list(argv))


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
