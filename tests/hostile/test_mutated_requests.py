"""Random and mutated ids and ``extra_args``; `make bench-mutated_requests` sends a million."""

import pytest

from bench.mutated_requests import run
from bench.request_path import Arrival, RequestPath
from subtext_sidecar.local.policy import CapturePolicy

REQUESTS = 20_000


def test_capture_stays_on_whatever_clients_send_and_memory_is_flat() -> None:
    figures = run(REQUESTS)

    assert figures.requests == REQUESTS
    assert figures.caught == 0
    assert figures.sampled > 0.2 * REQUESTS
    assert 0.1 * REQUESTS < figures.captures_read_back <= figures.sampled
    assert figures.is_flat, figures.resident_mib


@pytest.mark.parametrize(
    "odd", ["nul\x00", "x" * 1_000_000, "\ud800", "", "9" * 5000 + "_cmpl-x", "\x1b[31m"]
)
def test_an_odd_id_costs_no_other_request_its_rows(odd: str) -> None:
    """Of one step, whose rows are one block."""
    path = RequestPath(CapturePolicy(skip_first=0))
    innocent = [f"innocent-{number}" for number in range(31)]
    ids = [*(f"{odd}-{number}" for number in range(17)), *innocent]

    captured = path.serve(Arrival(f"{one}-{number:08x}") for number, one in enumerate(ids))

    assert len(captured) == len(ids)
    assert {facts.request_id for facts in captured} > set(innocent)
    assert path.blocks == 1


def test_prompts_of_embeddings_take_no_token_of_others_with_them() -> None:
    path = RequestPath(CapturePolicy(skip_first=0))
    mixed = [True, True, False, True]

    captured = path.serve(
        [
            Arrival("cmpl-whole-0-00000000", has_tokens=False),
            Arrival("chatcmpl-mixed-00000001", is_token=mixed),
            Arrival("chatcmpl-tokens-00000002"),
        ]
    )

    assert {facts.request_id for facts in captured} == {"mixed", "tokens"}
    assert path.counts()["requests_sampled"] == 3
