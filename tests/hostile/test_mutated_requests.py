"""Random and mutated ids and ``extra_args``; `make bench-mutated_requests` sends a million."""

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
