"""What becomes of one canary, as its runner sees it: endpoint and store are in memory."""

import datetime as dt
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError

from service.store.read.canaries import Found
from subtext_sidecar.contract.canary import canary_key, prompt_digest, read_token
from tests.support.secret import SECRET
from workers.canary.endpoint import EndpointError
from workers.canary.metrics import CanaryMetrics
from workers.canary.prompts import Canary, ConceptCanaries, Kind
from workers.canary.runner import Hops, Result, Runner, longest_seconds

KEY = canary_key(SECRET)
IDS = [1, 5, 7]
POSITIVE = Canary("bombs", "positive", "about bombs")
NOTHING = Found(0, 0, frozenset())
PASSED = {
    ("plugin", "requests_sampled"): 1,
    ("sidecar", "rows_shipped"): 3,
    ("worker", "rows_decoded"): 3,
}


@dataclass
class Parts:
    """Both ports: what the endpoint is asked, and what the store then says, one answer a look."""

    answers: list[Found]
    after: Hops = field(default_factory=dict)
    before: Hops = field(default_factory=dict)
    error: Exception | None = None
    tokens: list[str] = field(default_factory=list)

    def ask(self, prompt: Sequence[int], token: str, nonce: str) -> None:
        said = read_token(KEY, token, "m", time.time())
        assert said is not None
        assert said.nonce == nonce
        assert said.prompt == prompt_digest(prompt) == prompt_digest(IDS)
        self.tokens.append(token)
        if isinstance(self.error, EndpointError):
            raise self.error

    def find(self, nonce: str) -> Found:
        assert nonce in self.tokens[-1]
        if self.error is not None:
            raise self.error
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def count_hops(self, since: dt.datetime) -> Hops:
        assert since.tzinfo is not None
        return self.after if self.tokens else self.before


def run(parts: Parts, deadline: float = 0.0) -> Result:
    observed: list[Result] = []
    runner = Runner(
        endpoint=parts,
        store=parts,
        tokenize={POSITIVE.prompt: IDS}.__getitem__,
        key=KEY,
        model="m",
        deadline_seconds=deadline,
        interval_seconds=0.0,
        stop=threading.Event(),
        observe=lambda *said: observed.append(said[1]),
    )
    result = runner.run_one(POSITIVE)
    assert observed == [result]
    return result


def test_a_canary_is_flagged_as_soon_as_its_concept_is() -> None:
    parts = Parts([NOTHING, Found(1, 1, frozenset()), Found(2, 2, frozenset({"bombs"}))])

    assert run(parts, deadline=600.0) == Result("flagged")


def test_what_was_read_by_the_deadline_without_the_concept_is_not_flagged() -> None:
    assert run(Parts([Found(3, 3, frozenset({"bread"}))])) == Result("not_flagged")


@pytest.mark.parametrize(
    ("missing", "lost_at"),
    [(None, "store"), ("worker", "worker"), ("sidecar", "sidecar"), ("plugin", "plugin")],
)
def test_a_canary_that_nobody_read_is_lost_at_the_first_hop_that_counted_none(
    missing: str | None, lost_at: str
) -> None:
    after = {key: value for key, value in PASSED.items() if key[0] != missing}

    assert run(Parts([NOTHING], after)) == Result("lost", lost_at)  # type: ignore[arg-type]


REPLAYED = PASSED | {("plugin", "ignored_canary_replayed"): 1}


@pytest.mark.parametrize(
    ("found", "after"),
    [
        (Found(3, 3, frozenset()), REPLAYED),
        (Found(3, 3, frozenset({"bombs"})), REPLAYED),
        (NOTHING, REPLAYED),
        (Found(6, 6, frozenset(), is_replayed=True), PASSED),
    ],
)
def test_a_canary_whose_token_somebody_else_used_is_lost_and_no_evidence_of_recall(
    found: Found, after: Hops
) -> None:
    assert run(Parts([found], after)) == Result("lost", "replayed")


def test_a_replay_that_was_counted_before_is_not_the_canarys() -> None:
    parts = Parts([Found(3, 3, frozenset())], REPLAYED, before=REPLAYED)

    assert run(parts) == Result("not_flagged")


def test_a_canary_whose_token_came_with_another_prompt_is_lost() -> None:
    after = PASSED | {("plugin", "ignored_canary_altered"): 1}

    assert run(Parts([NOTHING], after)) == Result("lost", "altered")


@pytest.mark.parametrize("concepts", [frozenset[str](), frozenset({"bombs"})])
def test_a_canary_that_is_half_read_at_the_deadline_says_nothing_of_recall(
    concepts: frozenset[str],
) -> None:
    assert run(Parts([Found(2, 2, concepts, is_complete=False)])) == Result("lost", "half_read")


def test_a_canary_that_is_flagged_early_is_waited_for_until_it_is_read() -> None:
    flagged = frozenset({"bombs"})
    parts = Parts([Found(2, 2, flagged, is_complete=False), Found(5, 5, flagged)])

    assert run(parts, deadline=600.0) == Result("flagged")


def test_an_endpoint_that_fails_loses_the_canary() -> None:
    assert run(Parts([NOTHING], error=EndpointError("HTTP 500"))) == Result("lost", "endpoint")


def test_a_store_that_is_away_loses_the_canary_and_ends_nothing() -> None:
    away = OperationalError("SELECT", {}, Exception("away"))

    assert run(Parts([NOTHING], error=away)) == Result("lost", "store")


@pytest.mark.parametrize("skew_seconds", [-140.0, 0.0, 140.0])
def test_a_token_is_good_for_an_engine_whose_clock_is_two_minutes_off(skew_seconds: float) -> None:
    parts = Parts([Found(1, 1, frozenset())])
    sent = time.time()

    run(parts)

    [token] = parts.tokens
    # The clock of the engine when the token was made: what the test takes since then is no skew.
    assert read_token(KEY, token, "m", sent + skew_seconds) is not None


def test_no_token_is_made_twice() -> None:
    parts = Parts([Found(1, 1, frozenset())])
    for _ in range(20):
        run(parts)

    assert len(set(parts.tokens)) == 20


CONCEPT = ConceptCanaries(
    concept="bombs", required_recall=0.5, positive=("about bombs",), negative=("about bread",)
)


class Shown:
    def __init__(self, window: int = 5, concept: ConceptCanaries = CONCEPT) -> None:
        self.registry = CollectorRegistry()
        self.metrics = CanaryMetrics(
            self.registry, "m", [concept], window, longest_seconds=330.0, started=2.0
        )

    def add(self, kind: Kind, *results: Result) -> None:
        for result in results:
            self.metrics.add(Canary("bombs", kind, "x"), result, 5.0)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"subtext_canary_{name}", {"model": "m", **labels})


def test_every_series_is_there_before_the_first_canary() -> None:
    shown = Shown()

    for kind in ("positive", "negative"):
        for outcome in ("flagged", "not_flagged", "lost"):
            assert shown("runs_total", concept="bombs", kind=kind, outcome=outcome) == 0
        assert shown("window_runs", concept="bombs", kind=kind) == 0
    for hop in ("endpoint", "replayed", "altered", "plugin", "sidecar", "worker", "store", "half_read"):
        assert shown("lost_total", hop=hop) == 0
    assert shown("recall_upper_limit_ratio", concept="bombs") == 1.0
    assert shown("recall_required_ratio", concept="bombs") == 0.5
    assert shown("last_run_timestamp_seconds") == 2.0
    assert shown("interval_limit_seconds") == 330.0


def test_a_concept_of_which_no_recall_is_required_has_nothing_to_fail_by() -> None:
    shown = Shown(concept=CONCEPT.model_copy(update={"required_recall": None}))

    assert shown("recall_required_ratio", concept="bombs") is None
    assert shown("recall_upper_limit_ratio", concept="bombs") == 1.0


def test_two_results_are_at_most_a_long_pause_an_answer_and_a_deadline_apart() -> None:
    assert longest_seconds(120.0, 60.0) == 150.0 + 120.0 + 60.0


def test_recall_is_of_the_last_runs_that_were_read() -> None:
    shown = Shown()
    shown.add("positive", *[Result("flagged")] * 3, *[Result("not_flagged")] * 4, Result("lost", "plugin"))
    shown.add("negative", Result("flagged"), Result("not_flagged"))

    assert shown("window_runs", concept="bombs", kind="positive") == 5
    assert shown("window_flagged", concept="bombs", kind="positive") == 1
    # Of 1 in 5, by the tables of Clopper and Pearson.
    assert shown("recall_upper_limit_ratio", concept="bombs") == pytest.approx(0.6574, abs=1e-4)
    assert shown("window_flagged", concept="bombs", kind="negative") == 1
    assert shown("window_runs", concept="bombs", kind="negative") == 2
    assert shown("lost_total", hop="plugin") == 1
    assert shown("runs_total", concept="bombs", kind="positive", outcome="lost") == 1
    assert shown("last_run_timestamp_seconds") == 5.0


def test_stolen_canaries_leave_recall_alone() -> None:
    shown = Shown(window=20)
    shown.add("positive", *[Result("lost", "replayed")] * 20)

    assert shown("window_runs", concept="bombs", kind="positive") == 0
    assert shown("recall_upper_limit_ratio", concept="bombs") == 1.0
    assert shown("lost_total", hop="replayed") == 20


def test_a_required_fifth_is_missed_after_fourteen_runs_and_not_before() -> None:
    shown = Shown(window=20)

    shown.add("positive", *[Result("not_flagged")] * 13)
    assert (shown("recall_upper_limit_ratio", concept="bombs") or 0.0) > 0.2
    shown.add("positive", Result("not_flagged"))
    assert (shown("recall_upper_limit_ratio", concept="bombs") or 1.0) < 0.2
