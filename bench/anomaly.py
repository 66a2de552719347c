"""How well the detector tells strange requests from real ones, and whether its p-values are p-values.

Benign are held-out real chats that neither reference nor pair has seen. Strange are the same requests with
shuffled characters or words, in base64 or with a suffix of an attack, as long random bytes, and requests in
other scripts, in the same format. Rows are those of the prompt, behind the part of the template that all
requests share: by the last so many positions (the policy's `prompt_window`), or all. A request's score is
the mean of its rows' -log p. Candidates beside the detector: the distance of a request's mean vector, and
rank by the nearest neighbour. Everything read is kept in the work folder. The last line is JSON.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]  # no types upstream

from bench import anomaly_read, anomaly_traffic
from bench.anomaly_read import Traffic
from bench.live_chats_prompts import held_out, to_ask
from subtext_sidecar.anomaly.reference import digest, load_reference
from subtext_sidecar.anomaly.score import PROMPT, Detector, Places
from workers.judge.request_anomalies import JudgedRow, RequestNull
from workers.training.config import Activations
from workers.training.data import positions
from workers.training.data.lines import read_lines

_SUBTEXT: Final = Path(".subtext")
WINDOWS: Final = {"last 2": 2, "last 8": 8, "last 32": 32, "all": 1 << 20}
LEVELS: Final = (0.01, 0.05)
_ROUNDS: Final = 1000
_MOST_TOKENS: Final = {"benign": 200, "strange": 250}
_MOST_CHARACTERS: Final = 300
_POOLED: Final = 16
"""Directions of the mean vectors' distance."""
_NEIGHBOURS: Final = 6000

Scores = NDArray[np.float64]


class Figure(NamedTuple):
    """An estimate with its 95% bootstrap interval by request."""

    value: float
    lower: float
    upper: float
    requests: int


def main(argv: Sequence[str]) -> int:
    """Print a table and the JSON line; return 0."""
    options = _options(argv)
    reference = load_reference(options.reference)
    traffic = collect(options, reference.layer)
    detector = Detector(reference)
    judged = {name: judge(detector, one) for name, one in traffic.items()}
    kinds = [name for name in traffic if name not in {"benign", "calibration"}]
    table = {
        f"rows, {window}": {
            kind: area(judged[kind].scores(positions), judged["benign"].scores(positions)) for kind in kinds
        }
        for window, positions in WINDOWS.items()
    }
    pool = pooled(traffic["calibration"], detector)
    nearest = neighbours(traffic["calibration"])
    for name, score in (("mean vector", pool), ("nearest neighbour", nearest)):
        table[name] = {kind: area(score(traffic[kind]), score(traffic["benign"])) for kind in kinds}
    found = {str(level): share(judged["benign"], level) for level in LEVELS}
    null = RequestNull(reference.request_p_values)
    requests = {
        f"{level}, {window}": {
            name: requests_found(one, null, positions, level) for name, one in judged.items()
        }
        for level in LEVELS
        for window, positions in WINDOWS.items()
    }
    _print(kinds, table, found)
    _print_requests(requests)
    document = {
        "bench": "anomaly",
        "reference": digest(reference),
        "auroc": {name: {kind: one._asdict() for kind, one in row.items()} for name, row in table.items()},
        "benign_rows_found": {level: one._asdict() for level, one in found.items()},
        "requests_found": {
            name: {kind: one._asdict() for kind, one in row.items()} for name, row in requests.items()
        },
    }
    print(json.dumps(document))
    return 0


def collect(options: argparse.Namespace, layer: int) -> dict[str, Traffic]:
    """Return the activations by kind of traffic, read now or before."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    chats = read_lines(options.run / "chats.jsonl")
    shares = Activations(held_out_share=0.15, calibration_share=0.08)  # as in the run's file
    first = positions.shared_prefix([chat["tokens"] for chat in chats])
    by_split: dict[str, list[dict[str, Any]]] = {}
    for chat in chats:
        prompt = chat["tokens"][: chat["prompt_tokens"]]
        by_split.setdefault(positions.split_of(prompt, shares), []).append(chat)
    rng = random.Random(0)  # noqa: S311  # a choice of data, not a secret
    short = {
        split: [one for one in rows if one["prompt_tokens"] <= _MOST_TOKENS["benign"]]
        for split, rows in by_split.items()
    }
    real = [one for one in short["held_out"] if one["origin"] == "real"]
    prompts = {
        name: [one["tokens"][: one["prompt_tokens"]] for one in rng.sample(rows, options.requests)]
        for name, rows in (("benign", real), ("calibration", short["calibration"]))
    }
    asks = held_out(by_split["held_out"], tokenizer, shares)
    texts = [ask.text for ask in asks if ask.is_real and len(ask.text) <= _MOST_CHARACTERS]
    suffixes = anomaly_traffic.suffix_makers(tokenizer, options.wheels)
    for request in anomaly_traffic.strange_requests(texts, options.strange, suffixes, 0):
        tokens = to_ask(request.text, tokenizer, is_real=False).tokens
        if len(tokens) <= _MOST_TOKENS["strange"]:
            prompts.setdefault(request.kind, []).append(tokens)
    options.work.mkdir(parents=True, exist_ok=True)
    reader: anomaly_read.PromptReader | None = None
    traffic = {}
    for name, of_kind in prompts.items():
        path = options.work / f"{name.replace(',', '').replace(' ', '_')}.safetensors"
        if not path.exists():
            reader = reader or anomaly_read.PromptReader(options.model, layer=layer, template_tokens=first)
            anomaly_read.save(reader.read(of_kind[: options.requests]), path)
            print(f"read {len(of_kind)} requests: {name}", file=sys.stderr)
        traffic[name] = anomaly_read.load(path)
    return traffic


class Judged(NamedTuple):
    """Rows with their p-values, (n,) each."""

    p_values: Scores
    documents: NDArray[np.int64]
    to_end: NDArray[np.int64]
    """Number of rows of the same request behind the row."""

    def scores(self, window: int) -> Scores:
        """Return each request's mean -log p over its last ``window`` rows."""
        is_used = self.to_end < window
        sums = np.bincount(self.documents[is_used], -np.log(self.p_values[is_used]))
        return np.asarray(sums / np.bincount(self.documents[is_used]), np.float64)


def judge(detector: Detector, traffic: Traffic) -> Judged:
    """Measure the rows with the product's detector."""
    measured = detector.score(traffic.vectors, _places(traffic))
    ends = np.zeros(traffic.documents.max() + 1, np.int64)
    np.maximum.at(ends, traffic.documents, traffic.positions)
    return Judged(measured.p_values, traffic.documents, ends[traffic.documents] - traffic.positions)


def pooled(calibration: Traffic, detector: Detector) -> Callable[[Traffic], Scores]:
    """Return a score of requests: the Mahalanobis distance of the mean vector of the client's words."""

    def means(traffic: Traffic) -> Scores:
        is_prompt = detector.reference.template.classify(_places(traffic)) == PROMPT
        units = _units(traffic)[is_prompt]
        _, numbers = np.unique(traffic.documents[is_prompt], return_inverse=True)
        sums = np.zeros((numbers.max() + 1, units.shape[1]))
        np.add.at(sums, numbers, units)
        return np.asarray(sums / np.bincount(numbers)[:, None], np.float64)

    known = means(calibration)
    centre = known.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((known - centre).T))

    def score(traffic: Traffic) -> Scores:
        inside = (means(traffic) - centre) @ vectors[:, -_POOLED:]
        return np.asarray((inside**2 / values[-_POOLED:]).sum(axis=1), np.float64)

    return score


def neighbours(calibration: Traffic) -> Callable[[Traffic], Scores]:
    """Return a score of requests: the mean distance of their rows to the nearest row of benign ones."""
    rng = np.random.default_rng(0)
    count = min(_NEIGHBOURS, len(calibration.vectors))
    chosen = calibration.take(rng.choice(len(calibration.vectors), count, replace=False))
    known = _units(chosen).astype(np.float32)

    def score(traffic: Traffic) -> Scores:
        nearest = (_units(traffic).astype(np.float32) @ known.T).max(axis=1)
        sums = np.bincount(traffic.documents, 1.0 - nearest)
        return np.asarray(sums / np.bincount(traffic.documents), np.float64)

    return score


def area(strange: Scores, benign: Scores) -> Figure:
    """Return the area under the ROC curve: how often a strange request has the higher score."""
    rng = np.random.default_rng(0)
    wins = (strange[:, None] > benign[None]) + 0.5 * (strange[:, None] == benign[None])
    drawn = []
    for _ in range(_ROUNDS):
        rows, columns = (rng.integers(size, size=size) for size in wins.shape)
        weights = np.bincount(rows, minlength=wins.shape[0]) @ wins
        drawn.append(float(weights @ np.bincount(columns, minlength=wins.shape[1])) / wins.size)
    lower, upper = np.percentile(drawn, (2.5, 97.5))
    return Figure(float(wins.mean()), float(lower), float(upper), len(strange))


def share(judged: Judged, level: float) -> Figure:
    """Return the share of rows with a p-value at or below a level."""
    rng = np.random.default_rng(0)
    found = np.bincount(judged.documents, judged.p_values <= level)
    rows = np.bincount(judged.documents)
    drawn = []
    for _ in range(_ROUNDS):
        chosen = rng.integers(len(rows), size=len(rows))
        drawn.append(float(found[chosen].sum() / rows[chosen].sum()))
    lower, upper = np.percentile(drawn, (2.5, 97.5))
    return Figure(float(found.sum() / rows.sum()), float(lower), float(upper), len(rows))


def requests_found(judged: Judged, null: RequestNull, window: int, level: float) -> Figure:
    """Return the share of requests with a p-value at or below a level, by their last ``window`` rows."""
    is_used = judged.to_end < window
    found = []
    for document in np.unique(judged.documents):
        of_request = is_used & (judged.documents == document)
        rows = [
            JudgedRow(int(place), float(p_value), is_baseline=True)
            for place, p_value in zip(judged.to_end[of_request], judged.p_values[of_request], strict=True)
        ]
        test = null.judge(str(document), rows)
        found.append(test is not None and test.p_value <= level)
    limits = binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return Figure(float(np.mean(found)), float(limits.low), float(limits.high), len(found))


def _print_requests(requests: dict[str, dict[str, Figure]]) -> None:
    print("Requests with a p-value at or below a level, by at most ten of their last rows")
    for name, row in requests.items():
        cells = [f"{kind} {_shown(one)} of {one.requests}" for kind, one in row.items()]
        print(f"  {name:14} {'; '.join(cells)}")


def _places(traffic: Traffic) -> Places:
    return Places(traffic.positions, traffic.tokens, traffic.phases == 0)


def _units(traffic: Traffic) -> Scores:
    wide = traffic.vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float64)


def _print(kinds: Sequence[str], table: dict[str, dict[str, Figure]], found: dict[str, Figure]) -> None:
    print("AUROC of requests [95% interval by request]")
    for kind in kinds:
        cells = [f"{name} {_shown(row[kind])}" for name, row in table.items()]
        print(f"  {kind:22} (n {table['rows, all'][kind].requests:3}) {'; '.join(cells)}")
    for level, one in found.items():
        print(f"  benign rows at p <= {level}: {_shown(one)} of {one.requests} requests")


def _shown(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.lower:.3f}, {figure.upper:.3f}]"


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-anomaly", description=__doc__)
    parser.add_argument("--model", type=Path, default=_SUBTEXT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--run", type=Path, default=_SUBTEXT / "runs/smollm2-135m-l23-gpu")
    parser.add_argument("--wheels", type=Path, default=_SUBTEXT / "wheels")
    parser.add_argument(
        "--reference", type=Path, default=Path("deploy/decoders/smollm2-135m-l23/anomaly.safetensors")
    )
    parser.add_argument("--work", type=Path, default=_SUBTEXT / "bench-anomaly")
    parser.add_argument("--requests", type=int, default=400, help="benign ones, and of the calibration")
    parser.add_argument("--strange", type=int, default=120, help="of each kind")
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
