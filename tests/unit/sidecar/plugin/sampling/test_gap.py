from types import SimpleNamespace
from typing import Any

from subtext_sidecar.plugin.sampling.gap import Gap
from subtext_sidecar.plugin.sampling.watchlist import MAX_KNOWN_REQUESTS


def scheduled(new: dict[str, int], finished: set[str] | None = None) -> Any:
    return SimpleNamespace(
        finished_req_ids=finished or set(),
        scheduled_new_reqs=[SimpleNamespace(req_id=key, prompt_len=length) for key, length in new.items()],
    )


def test_who_comes_is_counted_once_and_who_was_there_is_not() -> None:
    missed: list[int] = []
    gap = Gap({"old": 3}, missed.append)

    gap.note(scheduled({"a": 5, "b": 6}))
    gap.note(scheduled({"a": 5, "b": 6}))  # the same step again, or preempted
    gap.note(scheduled({"old": 3}))
    gap.note(scheduled({}, {"a", "never heard of"}))
    gap.note(scheduled({"b": 9}))  # the next input of a session

    assert missed == [2, 1]
    assert gap.known == {"old": 3, "b": 9}


def test_what_is_remembered_is_bounded() -> None:
    missed: list[int] = []
    gap = Gap({}, missed.append)

    gap.note(scheduled({str(number): 1 for number in range(MAX_KNOWN_REQUESTS + 5)}))

    assert missed == [MAX_KNOWN_REQUESTS + 5]
    assert len(gap.known) == MAX_KNOWN_REQUESTS
