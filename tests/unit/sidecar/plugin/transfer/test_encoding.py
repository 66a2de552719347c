from collections import Counter

import numpy as np
import pytest
import torch

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.request_id import bounded
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import MAX_BLOCK_HEADER_BYTES, MAX_ROWS, Block, decode_block
from subtext_sidecar.plugin.sampling.request_args import request_facts
from subtext_sidecar.plugin.sampling.rule import Choice
from subtext_sidecar.plugin.sampling.watchlist import RowSelection, Watch, WatchedPosition
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.encoding import Identity, Part, encode, end_token_ids
from subtext_sidecar.plugin.transfer.handover import Batch
from subtext_sidecar.plugin.transfer.ring import open_ring

IDENTITY = Identity("m", 20, frozenset({2}))


def taken(
    position: int,
    request_id: str = "request",
    stratum: Stratum = Stratum.UNIFORM,
    *,
    is_prefill: bool = False,
) -> WatchedPosition:
    choice = Choice(
        prompt_tokens=position + 1 if is_prefill else 0,
        offset=0,
        stride=2,
        window=1,
        first_position=0,
        dense_stop=1_000_000,
        rest_start=1_000_000,
        stop=1_000_000,
        probability=0.5,
    )
    request = request_facts([request_id], stratum, None, request_id.encode().hex().zfill(32)[:32])
    return Watch("internal", request, 0, choice), position


def batch(
    wanted: list[WatchedPosition],
    token_ids: list[int] | None = None,
    positions: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    count = len(wanted)
    residual = (torch.arange(count * 4).reshape(count, 4) % 251).to(dtype)
    step = Step(
        ["a"],
        [0, count],
        [0],
        residual,
        4,
        torch.tensor(token_ids or [7] * count, dtype=torch.int32),
        torch.tensor(positions or [position for _, position in wanted]),
    )
    ring = open_ring(Layout(count, 4, dtype), residual.device)
    picked = RowSelection(list(range(count)), wanted)
    run = ring.gather(step, picked.indices)
    assert run is not None
    return Batch(picked, ring, run, 1_800_000_000.0)


def blocks_of(one: Batch) -> list[Block]:
    return [decode_block(part.header, part.vectors.tobytes()) for part in encode(one, IDENTITY).parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_become_one_valid_block_with_their_own_values(dtype: torch.dtype) -> None:
    wanted = [taken(3), taken(4), taken(9, "other", Stratum.OPT_IN, is_prefill=True)]

    (block,) = blocks_of(batch(wanted, [7, 8, 9], dtype=dtype))

    assert block.values().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    header = block.header
    assert (header.model, header.layer, header.d_model, header.captured_at) == ("m", 20, 4, 1_800_000_000.0)
    assert [(request.request_id, request.stratum) for request in header.requests] == [
        ("request", "uniform"),
        ("other", "opt_in"),
    ]
    assert header.request == [0, 0, 1]
    assert [(row.position, row.token_id) for row in header.rows] == [(3, 7), (4, 8), (9, 9)]
    assert [(row.phase, row.probability, row.reason) for row in header.rows] == [
        ("decode", 0.25, "decode"),
        ("decode", 0.25, "decode"),
        ("prefill", 0.5, "prompt_end"),
    ]


def test_a_block_names_the_tenant_of_its_engine() -> None:
    acme = IDENTITY._replace(tenant="acme")

    (part,) = encode(batch([taken(3)]), acme).parts

    assert decode_block(part.header, part.vectors.tobytes()).header.tenant == "acme"
    assert blocks_of(batch([taken(3)]))[0].header.tenant == "default"


def test_a_row_that_ran_at_another_position_is_dropped() -> None:
    encoded = encode(batch([taken(3), taken(4), taken(5)], [7, 8, 9], [3, 5, 5]), IDENTITY)

    (part,) = encoded.parts
    block = decode_block(part.header, part.vectors.tobytes())
    assert [(row.position, row.token_id) for row in block.header.rows] == [(3, 7), (5, 9)]
    assert block.values()[:, 0].tolist() == [0, 8]
    assert encoded.dropped == {"dropped_position_mismatch": {"uniform": 1}}
    assert part.strata == {"uniform": 2}


def test_the_pass_after_the_end_token_is_dropped_but_end_tokens_of_the_prompt_are_kept() -> None:
    wanted = [taken(3, is_prefill=True), taken(4, "b", Stratum.OPT_IN)]

    encoded = encode(batch(wanted, [2, 2]), IDENTITY)

    (part,) = encoded.parts
    (row,) = decode_block(part.header, part.vectors.tobytes()).header.rows
    assert row.position == 3
    assert encoded.dropped == {"dropped_after_end": {"opt_in": 1}}


def test_a_batch_of_which_nothing_is_left_makes_no_block() -> None:
    encoded = encode(batch([taken(3)], [7], [4]), IDENTITY)

    assert encoded.parts == []
    assert encoded.dropped == {"dropped_position_mismatch": {"uniform": 1}}


def test_more_rows_than_a_block_may_have_make_several_blocks() -> None:
    wanted = [taken(position) for position in range(MAX_ROWS + 3)]

    first, second = blocks_of(batch(wanted))

    assert (len(first), len(second)) == (MAX_ROWS, 3)
    assert [row.position for row in second.header.rows] == [MAX_ROWS, MAX_ROWS + 1, MAX_ROWS + 2]
    assert second.values()[0, 0] == MAX_ROWS * 4 % 251


def test_two_requests_with_the_same_id_and_different_wishes_stay_apart() -> None:
    (block,) = blocks_of(batch([taken(3), taken(3, stratum=Stratum.OPT_IN), taken(4)]))

    strata = [block.header.requests[number].stratum for number in block.header.request]
    assert strata == ["uniform", "opt_in", "uniform"]


def test_a_block_is_a_view_of_the_ring_unless_rows_were_left_out() -> None:
    whole, part = batch([taken(0), taken(1)]), batch([taken(0), taken(1)], positions=[0, 5])

    def shares_memory(one: Batch) -> bool:
        (encoded,) = encode(one, IDENTITY).parts
        return bool(np.shares_memory(encoded.vectors, one.ring.read(one.run).vectors))

    assert (shares_memory(whole), shares_memory(part)) == (True, False)


def test_end_tokens_may_be_one_several_or_none() -> None:
    assert end_token_ids(2, [2, 0], None) == {0, 2}


def test_a_row_without_a_token_of_its_own_is_dropped_and_no_other() -> None:
    """The runner shows a token id there too, which is of whoever had the slot before."""
    embedded, mixed = taken(3, "a", is_prefill=True), taken(4, "b", is_prefill=True)
    embedded[0].embedded = frozenset({2, 3})
    mixed[0].embedded = frozenset({3})

    encoded = encode(batch([embedded, mixed, taken(9, "c")], [7, 8, 9]), IDENTITY)

    (part,) = encoded.parts
    header = decode_block(part.header, part.vectors.tobytes()).header
    assert [row.token_id for row in header.rows] == [8, 9]
    assert encoded.dropped == {"dropped_embedded": {"uniform": 1}}


def test_wide_rows_become_blocks_that_fit_a_frame() -> None:
    width = wire.MAX_FRAME_BYTES // 4 // 3  # three float32 rows fit
    wanted = [taken(position) for position in range(7)]
    residual = torch.arange(7.0)[:, None].expand(7, width).contiguous()
    step = Step(
        ["a"], [0, 7], [0], residual, width, torch.full((7,), 7, dtype=torch.int32), torch.arange(7)
    )
    ring = open_ring(Layout(7, width, torch.float32), residual.device)
    run = ring.gather(step, list(range(7)))
    assert run is not None

    parts = encode(Batch(RowSelection(list(range(7)), wanted), ring, run, 1.0), IDENTITY).parts

    assert [len(part.vectors) for part in parts] == [3, 3, 1]
    assert all(part.is_sendable for part in parts)


def test_a_block_of_the_longest_ids_fits_its_frame() -> None:
    wanted = [taken(0, bounded(f"{number}" + "x" * 9000)) for number in range(MAX_ROWS)]

    (part,) = encode(batch(wanted), IDENTITY).parts

    assert part.is_sendable
    assert len(decode_block(part.header, part.vectors.tobytes()).header.requests) == MAX_ROWS


@pytest.mark.parametrize(("header", "vector"), [(MAX_BLOCK_HEADER_BYTES + 1, 4), (4, (16 << 20) + 1)])
def test_a_block_that_no_sidecar_would_see_is_not_sendable(header: int, vector: int) -> None:
    part = Part(b"x" * header, np.zeros((1, vector), np.uint8), Counter(uniform=1))

    assert not part.is_sendable
