"""Fidelity of readings on held-out vectors against every null and baseline, and accuracy of themes.

``make bench-fidelity`` decodes vectors of held-out documents, and optionally of live chats, with the real
decoder. The vectors must not have been used for training or calibration. Every figure is printed with n and
a 95% interval, then the bars.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import pair
from bench.fidelity_data import Source, SourceError, load_source
from bench.fidelity_report import HELD_OUT, LIVE, document, table
from bench.patch import ChatsError
from workers.nla import fidelity, token_means
from workers.nla.calibration import FIGURES
from workers.nla.engine.verbalizer import EngineSettings, prepare_environment
from workers.nla.errors import DecoderError
from workers.nla.fidelity import Interval

if TYPE_CHECKING:
    from bench.fidelity_run import Bench
    from workers.nla.engine.nla_decoder import NlaDecoder

TAXONOMY = Path(__file__).resolve().parent.parent / "deploy" / "decoders" / "taxonomy.yaml"


def main(argv: Sequence[str]) -> int:
    """Run and report; return 0 if every bar is measured and passed, 1 if not, 2 on invalid input."""
    options = _options(argv)
    prepare_environment()
    try:
        tables, setting = _measure(options)
    except (DecoderError, SourceError, ChatsError) as error:
        sys.stderr.write(f"bench-fidelity: {error}\n")
        return 2
    results = document(tables, setting)
    print(table(tables))
    print(json.dumps(results))
    return 0 if results["ok"] else 1


def _measure(options: argparse.Namespace) -> tuple[dict[str, dict[str, Interval]], dict[str, Any]]:
    from bench.fidelity_run import check_chats
    from workers.nla.engine.nla_decoder import NlaDecoder
    from workers.training.data.lines import read_lines

    files = {HELD_OUT: options.vectors or pair.run_dir() / "held_out.safetensors"}
    if options.live:
        files[LIVE] = options.live
    sources = {name: load_source(path) for name, path in files.items()}
    train = load_source(path) if (path := _beside(options.train, "train.safetensors")) else None
    chats = {HELD_OUT: read_lines(path) if (path := _beside(options.chats, "chats.jsonl")) else None}
    for name, lines in chats.items():
        if lines is not None:
            check_chats(sources[name], lines)
    folder = options.decoder_dir or pair.demo_decoder()
    settings = EngineSettings(candidates=options.candidates or calibrated_candidates(folder))
    decoder = NlaDecoder.open(folder, settings)
    try:
        bench = _prepare(decoder, folder, sources[HELD_OUT], train, options)
        tables = {name: bench.measure(source, chats.get(name)) for name, source in sources.items()}
    finally:
        decoder.close()
    setting = {
        "decoder": decoder.identity.name,
        "digest": decoder.identity.digest,
        "candidates": settings.candidates,
        "is_calibrated": decoder.identity.is_calibrated,
        "files": {name: str(path) for name, path in files.items()},
    }
    return tables, setting


def _prepare(
    decoder: "NlaDecoder", folder: Path, held_out: Source, train: Source | None, options: argparse.Namespace
) -> "Bench":
    """Return the bench, with token means from the calibration or else from the training vectors.

    Raises SourceError when neither gives token means.
    """
    from bench.fidelity_run import Bench, Sizes, check_names
    from workers.nla.checkpoint.labels import load_labels
    from workers.nla.checkpoint.meta import load_meta
    from workers.training.data.labels import load_taxonomy

    meta, calibration = load_meta(folder / "av", "av"), decoder.calibration
    means = calibration.token_means if calibration else None
    if means is None and train is not None:
        samples = train.samples
        means = token_means.fit(samples.vectors, samples.tokens, decoder.reconstructor.embed)
    if means is None:
        raise SourceError(
            "nothing tells what tokens alone say: calibrate the decoder with tokens, or name --train"
        )
    vectors = held_out.samples.vectors
    head, taxonomy = None, load_taxonomy(options.taxonomy)
    if files := meta.labels:
        head = load_labels(folder / "av", d_model=meta.d_model, file=files.file, names_file=files.names)
        check_names(head.names, taxonomy)
    return Bench(
        decoder=decoder,
        means=means,
        mean=calibration.mean if calibration else fidelity.mean_direction(vectors),
        baseline=decoder.identity.fve_baseline if calibration else fidelity.fve_baseline(vectors),
        frame=pair.frame(folder / "av", meta) if meta.projector else None,
        head=head,
        taxonomy=taxonomy,
        model=options.model or pair.base_model(),
        train=train,
        sizes=Sizes(
            limit=options.limit,
            per_document=options.per_document,
            patches=options.patches,
            rounds=options.bootstrap_rounds,
        ),
    )


def calibrated_candidates(folder: Path) -> int:
    """Return the number of candidates a decoder was calibrated with, or the default if uncalibrated."""
    path = folder / FIGURES
    usual = EngineSettings().candidates
    return int(json.loads(path.read_text()).get("candidates", usual)) if path.exists() else usual


def _beside(named: Path | None, file: str) -> Path | None:
    """Return the named file, or else the training run's file if it exists."""
    path = named or pair.run_dir() / file
    return path if named or path.exists() else None


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-fidelity", description=__doc__)
    pair.add_decoder_option(parser)
    of_run = "of the decoder's training run in SUBTEXT_HOME"
    parser.add_argument(
        "--vectors",
        type=Path,
        help=f"held-out documents, as the trainer writes them (default: held_out.safetensors {of_run})",
    )
    parser.add_argument("--live", type=Path, help="the same of live chats, captured from the stream")
    parser.add_argument(
        "--train", type=Path, help=f"training vectors, for probes (default: train.safetensors {of_run})"
    )
    parser.add_argument(
        "--chats",
        type=Path,
        help="tokens of the held-out documents, for patching and the labeller on answers"
        f" (default: chats.jsonl {of_run})",
    )
    parser.add_argument("--model", type=Path, help="the audited model (default: the demo's)")
    parser.add_argument("--taxonomy", type=Path, default=TAXONOMY)
    parser.add_argument(
        "--candidates", type=pair.positive, help="readings of a vector (default: as calibrated, else 4)"
    )
    parser.add_argument("--limit", type=pair.positive, default=400, help="vectors read of each file")
    parser.add_argument("--per-document", type=pair.positive, default=2, help="of one document at most")
    parser.add_argument("--patches", type=pair.positive, default=200, help="positions that are patched")
    parser.add_argument("--bootstrap-rounds", type=pair.positive, default=1000)
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
