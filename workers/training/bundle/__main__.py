"""`python -m workers.training.bundle`: pack a training, train it on another machine, unpack the pair."""

import argparse
import json
import os
import sys
from pathlib import Path

from workers.training.bundle import pieces

_MIB = 1 << 20


def main(argv: list[str]) -> int:
    """Run one command; return 1 after a BundleError."""
    parser = argparse.ArgumentParser(prog="python -m workers.training.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write what a training needs, in pieces")
    packing.add_argument("--config", type=Path, required=True, help="run file of the pair")
    packing.add_argument("--out", type=Path, required=True, help="folder of the pieces")
    packing.add_argument("--gguf", type=Path, help="file that the model was converted from")
    packing.add_argument("--packages", type=Path, help="folder of wheels that the target lacks")
    packing.add_argument("--piece-mib", type=float, default=30, help="largest piece (default: 30)")
    training = commands.add_parser("train", help="train from the pieces and write the pair in pieces")
    training.add_argument("--bundle", type=Path, required=True, help="folder of the pieces")
    training.add_argument("--out", type=Path, required=True, help="folder of the results")
    training.add_argument("--home", type=Path, default=Path(".subtext/bundled"), help="where to work")
    training.add_argument("--share", type=float, default=1.0, help="train a share only: a rehearsal")
    opening = commands.add_parser("open", help="unpack a pair that came back")
    opening.add_argument("--results", type=Path, required=True, help="folder of the results")
    opening.add_argument("--into", type=Path, required=True, help="folder of the pair")
    arguments = parser.parse_args(argv)
    try:
        return {"pack": _pack, "train": _train, "open": _open}[arguments.command](arguments)
    except pieces.BundleError as error:
        _log(f"error: {error}")
        return 1


def _pack(arguments: argparse.Namespace) -> int:
    from workers.training.bundle import pack

    packing = pack.Packing(
        config_file=arguments.config,
        home=Path(os.environ.get("SUBTEXT_HOME", ".subtext")),
        out=arguments.out,
        gguf=arguments.gguf,
        packages=arguments.packages,
        piece_bytes=int(arguments.piece_mib * _MIB),
    )
    for piece in pack.pack(packing, _log):
        _log(f"{piece}: {piece.stat().st_size / _MIB:.1f} MiB")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from workers.training.bundle import train

    report = train.train(arguments.bundle, arguments.home, arguments.out, share=arguments.share, log=_log)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def _open(arguments: argparse.Namespace) -> int:
    pieces.join_pieces(arguments.results, arguments.into)
    return 0


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
