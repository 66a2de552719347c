"""``make bench-trust``: verdicts where the truth is known, at a stated false-positive rate.

`planted` steers the audited model along the direction of each concept while the text stays as it is, reads
the states with the demo's decoder, and tells how often each method, ours and cheaper ones, finds the
concept at the threshold that 1% of benign chats exceed. `classes` does the same for classes of traffic that
an auditor asks for. `nulls` tells how often the worker's own rule flags vectors that say nothing of their
request, `pairs` whether a reading names what the model is about to say, and `reconstruction` whether what
the decoder cannot rebuild is strange; `claims` tells how often what readings name is right. Finished
readings are kept in SUBTEXT_HOME/bench-trust, so an interrupted run goes on.
"""

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bench import pair
from bench.trust import class_scores, class_traffic, planted, report, scoring, steering
from bench.trust.claims import figures as claim_figures
from bench.trust.claims import run as claim_run
from bench.trust.nulls import flags as null_flags
from bench.trust.nulls import run as null_run
from bench.trust.pairs import figures as pair_figures
from bench.trust.pairs import run as pair_run
from bench.trust.rates import benign_needed
from bench.trust.reconstruction import run as rebuilt_run
from bench.trust.reconstruction import scores as rebuilt_scores
from deploy.local import launch
from workers.nla.engine.verbalizer import EngineSettings, prepare_environment
from workers.nla.errors import DecoderError

if TYPE_CHECKING:
    from workers.nla.checkpoint.labels import LabelHead
    from workers.nla.checkpoint.projector import Projector
    from workers.nla.engine.nla_decoder import NlaDecoder

_FOR_PROBES = 200
"""Benign chats that probes are fitted on, beside those that are tried."""
Part = tuple[dict[str, Any], list[report.BarResult], str]
"""A part's document, its bars, and the text that people read."""


def main(argv: Sequence[str]) -> int:
    """Run and report; return 0 if every bar is passed, 1 if not, 2 on invalid input."""
    options = _options(argv)
    prepare_environment()
    bars: list[report.BarResult] = []
    document: dict[str, Any] = {"bench": "trust"}
    with contextlib.ExitStack() as stack:
        opened = _Opened(options, stack)
        try:
            for name in _PARTS if options.part == _ALL else (options.part,):
                part, of_part, text = _PARTS[name](opened)
                document[name] = part
                bars += of_part
                print(text, flush=True)
        except (DecoderError, FileNotFoundError, ValueError) as error:
            sys.stderr.write(f"bench-trust: {error}\n")
            return 2
    document["ok"] = all(bar.is_passed for bar in bars)
    print(json.dumps(document))
    return 0 if document["ok"] else 1


class _Opened:
    """What the parts share, opened on first use; the stack closes it."""

    def __init__(self, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self.options = options
        self._stack = stack

    @functools.cached_property
    def folder(self) -> Path:
        """The decoder's."""
        return self.options.decoder_dir or pair.demo_decoder()

    @functools.cached_property
    def decoder(self) -> "NlaDecoder":
        """The decoder, with the candidates that it was calibrated with."""
        from bench.fidelity import calibrated_candidates
        from workers.nla.engine.nla_decoder import NlaDecoder

        settings = EngineSettings(candidates=calibrated_candidates(self.folder))
        return self._stack.enter_context(contextlib.closing(NlaDecoder.open(self.folder, settings)))

    @functools.cached_property
    def labels(self) -> "tuple[LabelHead, Projector]":
        """What writes the claims of readings; ValueError where the decoder has none."""
        from workers.nla.checkpoint.labels import load_labels
        from workers.nla.checkpoint.meta import load_meta
        from workers.nla.checkpoint.projector import load_projector

        meta = load_meta(self.folder / "av", "av")
        part = meta.projector
        if part is None:
            raise ValueError(
                f"--decoder-dir: {self.folder} has no projector, and so no label head for kinds"
            )
        return load_labels(self.folder / "av", d_model=meta.d_model), load_projector(
            self.folder / "av" / part.file,
            d_model=meta.d_model,
            rows=part.rows,
            scale=part.scale,
            mean=part.mean,
        )

    @functools.cached_property
    def steerer(self) -> steering.Steerer:
        """The audited model, steered at half the depth that the decoder reads."""
        layer = self.decoder.identity.layer
        return steering.Steerer(pair.base_model(), steered=layer // 2, read=layer)


def _classes(opened: _Opened) -> Part:
    found = _measure_classes(opened)
    bars = class_scores.judge(found)
    return class_scores.document(found, bars), bars, class_scores.text(found, bars)


def _claims(opened: _Opened) -> Part:
    found = claim_run.measure(*opened.labels, opened.options.run)
    return dict(claim_figures.document(*found)), [], claim_figures.text(*found)


def _planted(opened: _Opened) -> Part:
    rows, setting = _measure_planted(opened)
    bars = report.judge(rows)
    return report.document(rows, bars, setting), bars, report.text(rows, bars)


def _nulls(opened: _Opened) -> Part:
    options = opened.options
    found, setting = null_run.measure(
        opened.decoder,
        opened.steerer,
        null_run.Inputs(options.run, launch.CONCEPTS_FILE, launch.CONCEPT_CALIBRATION_FILE),
        requests=options.requests,
        kept=_kept(),
        log=pair.log,
    )
    bars = null_flags.judge(found)
    return null_flags.document(found, bars, setting), bars, null_flags.text(found, bars)


def _pairs(opened: _Opened) -> Part:
    found, setting = pair_run.measure(
        opened.decoder, opened.steerer, pairs=opened.options.pairs, kept=_kept(), log=pair.log
    )
    text = pair_figures.text(found.tests, found.solved)
    return pair_figures.document(found.tests, found.solved, setting), [], text


def _reconstruction(opened: _Opened) -> Part:
    from subtext_sidecar.anomaly.reference import load_reference
    from subtext_sidecar.anomaly.score import Detector
    from workers.nla.calibration import ANOMALY

    options = opened.options
    sizes = rebuilt_run.Sizes(options.requests, options.strange, options.positions)
    detector = Detector(load_reference(opened.folder / ANOMALY))
    traffic = rebuilt_run.collect(
        model=pair.base_model(),
        run=options.run,
        wheels=pair.state_dir() / "wheels",
        kept=_kept(),
        sizes=sizes,
        layer=detector.reference.layer,
    )
    found, setting = rebuilt_run.measure(
        opened.decoder, detector, traffic, sizes, kept=_kept(), log=pair.log
    )
    bars = rebuilt_scores.judge(found)
    return rebuilt_scores.document(found, bars, setting), bars, rebuilt_scores.text(found, bars)


_ALL: Final = "all"
_PARTS: Final[Mapping[str, Callable[[_Opened], Part]]] = MappingProxyType(
    {
        "classes": _classes,
        "claims": _claims,
        "planted": _planted,
        "nulls": _nulls,
        "pairs": _pairs,
        "reconstruction": _reconstruction,
    }
)


def _measure_classes(opened: _Opened) -> list[class_scores.ClassFigure]:
    from subtext_sidecar.anomaly.reference import load_reference
    from subtext_sidecar.anomaly.score import Detector
    from workers.nla.calibration import ANOMALY

    reference = load_reference(opened.folder / ANOMALY)
    pair.log("traffic classes")
    return class_traffic.measure(
        class_traffic.Material(
            steering.Steerer(pair.base_model(), steered=reference.layer // 2, read=reference.layer),
            *opened.labels,
            Detector(reference),
            opened.options.run,
            pair.state_dir() / "wheels",
        ),
        _kept(),
    )


def _kept() -> Path:
    kept = pair.state_dir() / "bench-trust"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def _measure_planted(opened: _Opened) -> tuple[list[report.Figure], dict[str, Any]]:
    options = opened.options
    sizes = planted.Sizes(options.benign, options.trials, options.random, tuple(options.doses))
    reference = slice(0, sizes.benign // 2)
    if reference.stop < benign_needed(report.TARGET):
        raise ValueError(
            f"--benign: {sizes.benign} leave {reference.stop} for thresholds, which need"
            f" {benign_needed(report.TARGET)}; give at least {2 * benign_needed(report.TARGET)}"
        )
    decoder, steerer = opened.decoder, opened.steerer
    sentences = steering.load_planted()
    chats = _chats(options.run, sizes.benign + sizes.trials + _FOR_PROBES)
    pair.log("steering")
    trials = planted.plant(steerer, sentences, chats, sizes)
    for_probes = planted.run(steerer, chats[-_FOR_PROBES:], None)
    negatives = np.concatenate([one.read for one in for_probes])
    reads = planted.read_conditions(decoder, trials, _kept(), pair.log)
    methods = _methods(steerer, sentences, planted.fit_probes(trials, negatives), opened.folder)
    table = scoring.score_all(methods, trials, reads, reference)
    rows = report.figures(table, reference, sizes.doses)
    setting = {
        "decoder": decoder.identity.name,
        "digest": decoder.identity.digest,
        "steered_behind_block": decoder.identity.layer // 2,
        "read_behind_block": decoder.identity.layer,
        "positions": planted.POSITIONS,
        "positions_required": scoring.REQUIRED,
        **sizes._asdict(),
    }
    return rows, setting


def _chats(run: Path, count: int) -> list[planted.Chat]:
    from workers.training.data.dataset import Samples
    from workers.training.data.lines import read_lines

    held_out = np.unique(Samples.load(run / "held_out.safetensors").documents)
    found = planted.choose_chats(read_lines(run / "chats.jsonl"), held_out, count=count)
    if len(found) < count:
        raise ValueError(f"--run: {run} holds out {len(found)} chats with long answers, not {count}")
    return found


def _methods(
    steerer: steering.Steerer, sentences: steering.Planted, probes: Any, folder: Path
) -> scoring.Methods:
    from subtext_sidecar.anomaly.reference import load_reference
    from subtext_sidecar.anomaly.score import Detector
    from workers.judge.concepts import load_concepts
    from workers.judge.embedder import MiniLmEmbedder
    from workers.judge.matching import ConceptMatcher
    from workers.nla.calibration import ANOMALY

    concepts = load_concepts(launch.CONCEPTS_FILE)
    detector = Detector(load_reference(folder / ANOMALY))
    return scoring.Methods(
        matcher=ConceptMatcher(
            concepts, MiniLmEmbedder(), {concept.name: -1.0 for concept in concepts.concepts}
        ),
        probes=probes,
        lens=steerer.lens,
        words={
            name: scoring.words_of(texts, sentences.neutral, steerer.tokenizer)
            for name, texts in sentences.concepts.items()
        },
        anomaly=lambda rows, places: np.asarray(detector.score(rows, places).anomaly, np.float64),
    )


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-trust", description=__doc__)
    pair.add_decoder_option(parser)
    parser.add_argument(
        "--run",
        type=Path,
        default=pair.run_dir(),
        help="training run with chats.jsonl and held_out.safetensors (default: the demo's)",
    )
    parser.add_argument(
        "--part", choices=(*_PARTS, _ALL), default=_ALL, help="what to measure (default: all)"
    )
    parser.add_argument(
        "--benign", type=pair.positive, default=1000, help="benign chats, half for thresholds"
    )
    parser.add_argument(
        "--trials", type=pair.positive, default=40, help="chats steered along each direction"
    )
    parser.add_argument("--random", type=pair.positive, default=40, help="random directions")
    parser.add_argument("--doses", type=float, nargs="+", default=[0.5, 1.0], help="of the state's length")
    parser.add_argument(
        "--requests",
        type=pair.positive,
        default=300,
        help="requests of each null, and benign ones of `reconstruction`",
    )
    parser.add_argument("--pairs", type=pair.positive, default=200, help="solved indirect-object pairs")
    parser.add_argument("--strange", type=pair.positive, default=100, help="strange requests of each kind")
    parser.add_argument("--positions", type=pair.positive, default=4, help="read of each of these prompts")
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
