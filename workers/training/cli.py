"""`subtext train`: make a shipped NLA pair from a model and a prompt source."""

import argparse
import os
import sys
from pathlib import Path


def train(argv: list[str]) -> int:
    """Run every unfinished step of a training; a second call resumes the first."""
    parser = argparse.ArgumentParser(prog="subtext train", description=train.__doc__)
    parser.add_argument("--config", type=Path, required=True, help="run.yaml of the pair")
    parser.add_argument("--finish", action="store_true", help="end each training at its last checkpoint")
    parser.add_argument(
        "--until", choices=("data", "labels", "ar", "av", "readings"), help="stop after this step"
    )
    arguments = parser.parse_args(argv)
    home = Path(os.environ.get("SUBTEXT_HOME", ".subtext"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Spinning threads starve each other on a shared machine (measured: 12 times slower).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from workers.training import steps
    from workers.training.config import load_config
    from workers.training.fit import precision

    config = load_config(arguments.config)
    run = steps.Run(
        config=config, config_file=arguments.config, home=home, log=_log, finish=arguments.finish
    )
    _prepare_libraries(config.threads)
    _log(f"training on {precision.device()}")
    steps.collect_data(run)
    if arguments.until == "data":
        return 0
    steps.fit_labels(run)
    if arguments.until == "labels":
        return 0
    ar = steps.train_reconstructor(run)
    if arguments.until == "ar":
        return 0
    av = steps.train_verbalizer(run)
    if arguments.until == "av":
        return 0
    candidates = steps.read_vectors(run, av)
    if arguments.until == "readings":
        return 0
    cosines = steps.adapt_reconstructor(run, ar, candidates)
    steps.train_on_winners(run, av, candidates, cosines)
    steps.evaluate(run, ar, av, steps.export(run, ar, av))
    return 0


def _prepare_libraries(threads: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(threads)
    # Truncated models leave weights unused by design; warnings about them would hide the progress lines.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
