"""Decide which positions of which requests are taken, with exact inclusion probabilities. Pure.

A request is taken when its 56 random bits reach the threshold of the rate in force: the rule of
OpenTelemetry's consistent sampling, so the bits may come from the request's trace as well as from
the keyed hash of (seed, capture id), which nobody can work out without the operator's secret. A
request that is taken at one rate is taken at every higher one.

Of a taken request: the last ``prompt_window`` prompt tokens, and of its answer windows of ``window``
adjacent positions, one in each block of positions. How long an answer becomes is not known when it
begins, and no more than ``max_rows_per_request`` rows of it may be taken; so blocks grow:

    prompt | stride | stride | ... | stride | 2 strides | 4 strides | ... | rest of the context
           |---------- dense ---------------|---------------- sparse --------------------------|

Within its block a window is shifted by an offset that the hash draws uniformly, and wraps around the
block's end; over the draw each position is therefore taken with probability exactly window / block.
As many blocks as the context allows have the length of one stride. Every position that the engine can
ever compute lies in some block, so that nothing is past reach; only ``skip_first`` positions are never
taken.
"""

import hashlib
import sys
from typing import Final, Literal, NamedTuple

import msgspec

from subtext_sidecar.contract.facts import Role
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.secret import DrawKey

Reason = Literal["prompt_end", "decode"]

NEVER: Final = sys.maxsize
RANDOMNESS_END: Final = 1 << 56  # randomness and thresholds are below it

# Apart from every other hash of capture ids, above all from the screen's: decisions that are
# multiplied must be independent.
_PURPOSE: Final = b"subtext-capture"


class Draw(NamedTuple):
    """What chance says about one request: two independent uniform numbers."""

    randomness: int  # in [0, RANDOMNESS_END)
    offset: int  # in [0, 2**56): modulo a block's length, the shift of its window


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What is fixed for one taken request."""

    prompt_tokens: int
    offset: int  # of the windows: modulo a block's length, their shift in it
    stride: int
    window: int
    first_position: int  # nothing before it is taken
    dense_stop: int  # first position behind the blocks of one stride
    rest_start: int  # first position of the last block
    stop: int  # first position that the context has no room for
    probability: float  # of the request


def draw(key: DrawKey, seed: int, identity: str) -> Draw:
    """Return the same draw for the same key, seed and identity, always and on every host."""
    digest = hashlib.blake2b(
        f"{seed}\x00{identity}".encode(), key=key, digest_size=16, person=_PURPOSE
    ).digest()
    return Draw(int.from_bytes(digest[:7]), int.from_bytes(digest[8:]))


def threshold(rate: float) -> int:
    """Return the rejection threshold of a rate: randomness at or above it is taken."""
    return RANDOMNESS_END - round(rate * RANDOMNESS_END)


def probability(rejection_threshold: int) -> float:
    """Return the exact probability that a threshold stands for."""
    return (RANDOMNESS_END - rejection_threshold) / RANDOMNESS_END


def choose(
    policy: CapturePolicy,
    drawn: Draw,
    prompt_tokens: int,
    request_probability: float,
    context: int,
    *,
    role: Role | None = None,
) -> Choice:
    """Return what is taken of a request that is taken itself with ``request_probability``.

    ``context`` is the number of positions that a request can have, prompt and answer together. Of a request
    that passes two engines each takes its own half of what one engine would take, by ``role``.
    """
    prompt_rows = min(policy.prompt_window, prompt_tokens)
    windows = (policy.max_rows_per_request - prompt_rows) // policy.window
    stop = prompt_tokens if role == "prefill" else max(context, prompt_tokens)
    first_position = prompt_tokens if role == "decode" else prompt_tokens - prompt_rows
    dense_stop, rest_start = _blocks(policy.decode_stride, windows, prompt_tokens, stop)
    return Choice(
        prompt_tokens=prompt_tokens,
        offset=drawn.offset,
        stride=policy.decode_stride,
        window=policy.window,
        first_position=max(policy.skip_first, first_position),
        dense_stop=dense_stop,
        rest_start=rest_start,
        stop=stop,
        probability=request_probability,
    )


def most_rows(
    policy: CapturePolicy,
    prompt_tokens: int,
    max_tokens: int | None,
    context: int,
    *,
    role: Role | None = None,
) -> int:
    """Return a bound on how many rows can be taken of a request; ``max_tokens`` is of its answer."""
    prompt = 0 if role == "decode" else min(policy.prompt_window, prompt_tokens - policy.skip_first)
    answer = 0
    if role != "prefill":
        # The last token of an answer is never computed.
        stop = context if max_tokens is None else min(context, prompt_tokens + max_tokens - 1)
        blocks, rest = divmod(max(0, stop - prompt_tokens), policy.decode_stride)
        answer = min(
            blocks * policy.window + min(rest, policy.window),
            stop - max(prompt_tokens, policy.skip_first),
        )
    return min(policy.max_rows_per_request, max(0, prompt) + max(0, answer))


def _blocks(stride: int, windows: int, start: int, stop: int) -> tuple[int, int]:
    """Divide the answer into so many blocks; return where the dense ones end and the last one begins."""
    for sparse in range(windows // 2 + 1):
        dense_stop = start + (windows - sparse) * stride
        if _sparse_start(dense_stop, stride, sparse + 1) >= stop:
            # The last block is of the regular length, so nothing is special about it.
            return min(dense_stop, stop), stop
    sparse = max(1, windows // 2)
    dense_stop = start + (windows - sparse) * stride
    return dense_stop, _sparse_start(dense_stop, stride, sparse)


def _sparse_start(dense_stop: int, stride: int, number: int) -> int:
    """Return where the sparse block of this number begins; the first, of two strides, has number 1."""
    return dense_stop + stride * ((1 << number) - 2)


class _Block(NamedTuple):
    start: int
    length: int


def _block_of(choice: Choice, position: int) -> _Block:
    """Return the block of a position of the answer. Blocks of one stride count as one another's start."""
    if position < choice.dense_stop:
        return _Block(choice.prompt_tokens, choice.stride)
    if position >= choice.rest_start:
        return _Block(choice.rest_start, choice.stop - choice.rest_start)
    number = ((position - choice.dense_stop) // choice.stride + 2).bit_length() - 1
    return _Block(_sparse_start(choice.dense_stop, choice.stride, number), choice.stride << number)


def next_position(choice: Choice, position: int) -> int:
    """Return the first taken position at or after ``position``, NEVER when there is none."""
    if position < choice.first_position:  # noqa: PLR1730  # a call costs more, in every step
        position = choice.first_position
    if position < choice.prompt_tokens:
        return position
    dense_stop = choice.dense_stop
    if position < dense_stop:
        stride = choice.stride
        into_stride = (position - choice.prompt_tokens - choice.offset) % stride
        if into_stride >= choice.window:
            position += stride - into_stride
        if position < dense_stop:
            return position
        position = dense_stop
    return _next_sparse(choice, position)


def _next_sparse(choice: Choice, position: int) -> int:
    while position < choice.stop:
        start, length = _block_of(choice, position)
        into = (position - start - choice.offset) % length
        if into < choice.window:
            return position
        position += length - into
        if position < start + length:
            return position if position < choice.stop else NEVER
        position = start + length
    return NEVER


def reason_of(choice: Choice, position: int) -> Reason:
    """Return why a taken position was taken."""
    return "prompt_end" if position < choice.prompt_tokens else "decode"


def probability_of(choice: Choice, position: int) -> float:
    """Return the inclusion probability of a taken position, over requests and offsets."""
    if position < choice.prompt_tokens:
        return choice.probability
    return choice.probability * min(1.0, choice.window / _block_of(choice, position).length)
