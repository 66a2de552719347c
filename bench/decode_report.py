"""Turn the rounds of bench-decode into ratios, verdicts, a table and one JSON object. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from bench.ratios import Bar, Estimate, estimate, judge, paired_ratios

Mode = Literal["greedy", "candidates"]
MODES: Final[tuple[Mode, ...]] = ("greedy", "candidates")
BATCHES: Final = (8, 32, 64)
"""Hugging Face's batch sizes; the bar applies to the fastest."""


class Run(NamedTuple):
    """One arm in one round."""

    seconds: float
    readings: int
    """Number of explanations written, or rebuilt by the AR."""
    tokens: int
    """Number of output tokens, end tokens included; 0 for the AR."""


class Prefill(NamedTuple):
    """Prefill of one greedy reading, in tokens."""

    prompt: int
    """The whole prompt, soft tokens included."""
    before: int
    """The part before the injection, which all prompts share."""
    cached: int
    """The part from the prefix cache."""

    @property
    def computed(self) -> int:
        """The part that the model computed."""
        return self.prompt - self.cached

    @property
    def excess(self) -> int:
        """Computed tokens beyond those from the injection on."""
        return self.computed - (self.prompt - self.before)


class Setting(NamedTuple):
    """The benchmark's configuration and environment."""

    decoder: str
    vectors: str
    candidates: int
    block: int
    """Tokens per block of the prefix cache."""
    threads: int
    device: str
    same_answers: float
    """Share of greedy answers equal to Hugging Face's token for token; rounding keeps it below 1."""


class BarResult(NamedTuple):
    """A bar and its measured figure."""

    figure: str
    bar: Bar
    found: Estimate


Rounds = Sequence[Mapping[str, Run]]


def ours(mode: Mode) -> str:
    """Return the name of the AV's arm."""
    return f"AV, {mode}"


def plain(mode: Mode) -> str:
    """Return the name of the arm with plain token prompts on the same engine."""
    return f"token prompts, {mode}"


def rebuilding(mode: Mode) -> str:
    """Return the name of the arm with the AR on the AV's texts."""
    return f"AR, {mode}"


def hugging_face(batch: int) -> str:
    """Return the name of an arm of Hugging Face `generate`."""
    return f"Hugging Face, batch {batch}"


ARMS: Final = (
    *(name(mode) for mode in MODES for name in (ours, plain, rebuilding)),
    *(hugging_face(batch) for batch in BATCHES),
)


def best_batch(rounds: Rounds) -> int:
    """Return Hugging Face's fastest batch size, by the median readings per second."""
    return max(BATCHES, key=lambda batch: estimate(_rates(rounds, hugging_face(batch))).median)


def ratios(rounds: Rounds, prefills: Sequence[Prefill], *, block: int) -> list[BarResult]:
    """Return every figure with a bar; speed ratios are taken within a round."""
    best = hugging_face(best_batch(rounds))
    against = paired_ratios(_rates(rounds, ours("greedy")), _rates(rounds, best))
    bars = [BarResult(f"AV, greedy: readings a second to {best}", Bar("at_least", 2.0), estimate(against))]
    for mode in MODES:
        to_plain = paired_ratios(_token_rates(rounds, ours(mode)), _token_rates(rounds, plain(mode)))
        share = paired_ratios(_seconds(rounds, rebuilding(mode)), _seconds(rounds, ours(mode)))
        bars += [
            BarResult(
                f"AV, {mode}: tokens a second to token prompts", Bar("at_least", 0.9), estimate(to_plain)
            ),
            BarResult(f"AR, {mode}: its time to the AV's", Bar("at_most", 0.25), estimate(share)),
        ]
    worst = float(max(one.excess for one in prefills))
    beyond = "prefill of any greedy reading beyond the tokens from the injection on"
    return [*bars, BarResult(beyond, Bar("at_most", float(block)), Estimate(worst, worst, worst))]


def document(rounds: Rounds, prefills: Sequence[Prefill], setting: Setting) -> dict[str, Any]:
    """Return all results as one JSON object; ``ok`` means that every bar is passed."""
    judged = ratios(rounds, prefills, block=setting.block)
    verdicts = [judge(one.bar, one.found) for one in judged]
    return {
        "bench": "decode",
        "rounds": len(rounds),
        **setting._asdict(),
        "arms": {
            name: {
                "readings_per_second": estimate(_rates(rounds, name))._asdict(),
                "tokens_per_second": estimate(_token_rates(rounds, name))._asdict(),
                "tokens_per_reading": _per_reading(rounds, name),
            }
            for name in ARMS
        },
        "prefill": {
            "readings": len(prefills),
            "prompt_tokens": _mean([one.prompt for one in prefills]),
            "from_injection_on": _mean([one.prompt - one.before for one in prefills]),
            "computed": _mean([one.computed for one in prefills]),
        },
        "bars": [
            {
                "figure": one.figure,
                "kind": one.bar.kind,
                "bar": one.bar.value,
                **one.found._asdict(),
                "passed": verdict.is_passed,
                "interval_contains_bar": verdict.is_open,
            }
            for one, verdict in zip(judged, verdicts, strict=True)
        ],
        "ok": all(verdict.is_passed for verdict in verdicts),
    }


def table(found: Mapping[str, Any]) -> str:
    """Render a document as a text table."""
    ran = f"{found['rounds']} rounds, {found['device']}, {found['threads']} threads"
    lines = [
        f"{ran}, {found['candidates']} candidates; median [95% interval]",
        f"  {'arm':28}{'readings a second':>26}{'tokens a second':>26}{'tokens a reading':>18}",
    ]
    lines += [
        f"  {name:28}{_shown(one['readings_per_second']):>26}"
        f"{_shown(one['tokens_per_second']):>26}{one['tokens_per_reading']:>18.1f}"
        for name, one in found["arms"].items()
    ]
    prefill = found["prefill"]
    lines.append(
        f"  prefill of a greedy reading: {prefill['computed']:.1f} of {prefill['prompt_tokens']:.1f} tokens"
        f" computed, {prefill['from_injection_on']:.1f} from the injection on, blocks of {found['block']}"
    )
    lines.append(f"  Hugging Face writes the same answer in {found['same_answers']:.0%}")
    for bar in found["bars"]:
        verdict = "pass" if bar["passed"] else "MISS"
        openness = ", but the interval contains the bar" if bar["interval_contains_bar"] else ""
        lines.append(
            f"  {verdict}  {bar['figure']}: {_shown(bar)}, {bar['kind'].replace('_', ' ')} {bar['bar']:g}"
            f"{openness}"
        )
    return "\n".join(lines)


def _rates(rounds: Rounds, arm: str) -> list[float]:
    return [one[arm].readings / one[arm].seconds for one in rounds]


def _token_rates(rounds: Rounds, arm: str) -> list[float]:
    return [one[arm].tokens / one[arm].seconds for one in rounds]


def _seconds(rounds: Rounds, arm: str) -> list[float]:
    return [one[arm].seconds for one in rounds]


def _per_reading(rounds: Rounds, arm: str) -> float:
    return sum(one[arm].tokens for one in rounds) / sum(one[arm].readings for one in rounds)


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _shown(value: Mapping[str, float]) -> str:
    return f"{value['median']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
