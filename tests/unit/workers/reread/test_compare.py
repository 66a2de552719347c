"""When a second reading is the recorded one, and what is said when it is not."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from workers.nla.decoder import Decoder
from workers.nla.errors import DecoderError
from workers.nla.fake import FakeDecoder, describe, fake_identity
from workers.reread import command
from workers.reread.again import read_again
from workers.reread.command import Answer
from workers.reread.compare import Recorded, Status, cannot, changed, exit_status, summary, why_not
from workers.reread.found import Found

IDENTITY = fake_identity()
ENGINE = {"seed": 0, "temperature": 0.8, "max_new_tokens": 40, "device": "cpu"}
COSINE = 0.875  # of the fake, for its FVE of 0.5


def found(value: float = 1.0, **changes: Any) -> Found:
    vector = np.full(8, value, np.float32)
    recorded: dict[str, Any] = {
        "explanation_id": uuid.uuid4(),
        "text": describe(vector),
        "cosine": COSINE,
        "fve": 0.5,
        "fve_baseline": 0.5,
        "candidates": 1,
        "decoder_digest": IDENTITY.digest,
        "engine": None,
    }
    return Found(Recorded(**(recorded | changes)), vector, 7, "prefill")


def opened(digest: str, candidates: int) -> Decoder:
    if (digest, candidates) != (IDENTITY.digest, 1):
        raise DecoderError(f"no decoder {digest}")
    return FakeDecoder(IDENTITY)


def statuses(*ones: Found) -> dict[uuid.UUID, Status]:
    return {one.recorded.explanation_id: one.status for one in read_again(ones, opened).outcomes}


def test_the_same_text_with_the_same_figures_is_identical() -> None:
    ones = [found(value) for value in range(1, 40)]  # more than a batch

    assert set(statuses(*ones).values()) == {Status.IDENTICAL}
    assert len(statuses(*ones)) == 39


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "another"}, "the text is another"),
        ({"cosine": COSINE + 0.003}, "cosine is off by 0.003, more than 0.002"),
        ({"fve": 0.49}, "fve is off by 0.01, more than 0.008"),
        ({"fve": float("nan")}, "fve is off"),
    ],
    ids=["text", "cosine", "fve", "nan"],
)
def test_what_differs_is_named(change: Mapping[str, Any], named: str) -> None:
    (outcome,) = read_again([found(**change)], opened).outcomes

    assert outcome.status == Status.DIFFERS
    assert named in outcome.why


def test_figures_within_the_tolerance_are_the_same() -> None:
    assert set(statuses(found(cosine=COSINE + 1.5e-3, fve=0.494)).values()) == {Status.IDENTICAL}


@pytest.mark.parametrize("change", [{"decoder_digest": "0" * 64}, {"candidates": 4}], ids=["digest", "n"])
def test_another_decoder_or_number_of_candidates_reads_nothing(change: Mapping[str, Any]) -> None:
    good, other = found(), found(**change)

    assert statuses(good, other) == {
        good.recorded.explanation_id: Status.IDENTICAL,
        other.recorded.explanation_id: Status.CANNOT,
    }


def test_candidates_that_were_drawn_otherwise_are_not_compared() -> None:
    assert why_not(found(engine=ENGINE).recorded, ENGINE) == ""
    assert why_not(found().recorded, ENGINE) == ""  # nobody told
    assert "seed was 1 and is 0" in why_not(found(engine=ENGINE | {"seed": 1}).recorded, ENGINE)
    assert statuses(one := found(engine=ENGINE)) == {one.recorded.explanation_id: Status.CANNOT}


def test_what_a_decoder_runs_on_may_change_and_is_told() -> None:
    recorded = found(engine=ENGINE | {"device": "NVIDIA"}).recorded

    assert changed(recorded, ENGINE) == {"device": {"recorded": "NVIDIA", "reread": "cpu"}}


def test_a_difference_outweighs_what_cannot_be_read_and_nothing_is_no_success() -> None:
    same, other = read_again([found(), found(text="another")], opened).outcomes
    not_read = cannot(found().recorded, "expired")

    for outcomes, status in (
        ([same], 0),
        ([same, other, not_read], 1),
        ([same, not_read], 2),
        ([], 2),
    ):
        assert exit_status(outcomes) == status


def test_the_share_of_identical_ones_is_of_those_that_were_read_again() -> None:
    outcomes = [
        *read_again([found(), found(text="another")], opened).outcomes,
        cannot(found().recorded, "x"),
    ]

    counted = summary(outcomes)

    assert (counted["explanations"], counted["reread"], counted["identical"]) == (3, 2, 1)
    assert counted["identical_share"]["value"] == 0.5
    low, high = counted["identical_share"]["ci95"]
    assert 0 < low < 0.5 < high < 1
    assert summary([cannot(found().recorded, "x")])["identical_share"] is None


def test_texts_are_shown_to_who_asked_for_them_alone() -> None:
    answer = Answer(read_again([found(text="a secret reading")], opened).outcomes, {})

    for render in (command.as_json, command.as_text):
        assert "a secret reading" not in render(answer, shows_text=False)
        assert "a secret reading" in render(answer, shows_text=True)
    document = json.loads(command.as_json(answer, shows_text=False))
    (told,) = document["explanations"]
    assert document["summary"] | {"identical_share": None} == {
        "explanations": 1,
        "reread": 1,
        "identical": 0,
        "identical_share": None,
    }
    assert (told["status"], told["text_identical"]) == ("differs", False)
    assert "0 of 1 identical, 95% interval" in command.as_text(answer, shows_text=False)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sample", "no-uuid"],
        ["--request", "r", "--show-text"],
        ["--request", "r", "--purpose", "audit"],
        ["--request", "r", "--show-text", "--purpose", "curiosity"],
        ["--request", "r", "--note", "n"],
    ],
    ids=" ".join,
)
def test_a_text_is_read_for_a_purpose_or_not_at_all(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.reread(list(arguments))

    assert caught.value.code == 2
