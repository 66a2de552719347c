"""Random and mutated ids and ``extra_args``; `make bench-mutated_requests` sends a million."""

from bench.mutated_requests import run

REQUESTS = 20_000


def test_capture_stays_on_whatever_clients_send_and_memory_is_flat() -> None:
    figures = run(REQUESTS)

    assert figures.requests == REQUESTS
    assert figures.caught == 0
    assert figures.sampled > 0.2 * REQUESTS
    assert 0.1 * REQUESTS < figures.captures_read_back <= figures.sampled
    assert figures.is_flat, figures.resident_mib
