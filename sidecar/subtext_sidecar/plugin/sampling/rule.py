"""Decide which positions of which requests are taken, with exact inclusion probabilities. Pure.

A request is taken when its 56 random bits reach the threshold of the rate in force: the rule of
OpenTelemetry's consistent sampling, so the bits may come from the request's trace as well as from
the hash of (seed, request id). A request that is taken at one rate is taken at every higher one.

Of a taken request: the last ``prompt_window`` prompt tokens, and windows of ``window`` adjacent
decode positions every ``decode_stride``, shifted by an offset that the hash draws uniformly from
[0, decode_stride). Over the draw each decode position up to the horizon is therefore taken with
probability exactly window / decode_stride. The horizon keeps every request within
``max_rows_per_request`` whatever the offset, so that the cap does not disturb the probabilities:
past it a position is never taken. ``skip_first`` positions are never taken either.
"""

import hashlib
import sys
from typing import Final, Literal, NamedTuple

import msgspec

from subtext_sidecar.local.policy import CapturePolicy

Reason = Literal["prompt_end", "decode"]

NEVER: Final = sys.maxsize
RANDOMNESS_END: Final = 1 << 56  # randomness and thresholds are below it

# Apart from every other hash of request ids, above all from the screen's: decisions that are
# multiplied must be independent.
_PURPOSE: Final = b"subtext-capture"


class Draw(NamedTuple):
    """What chance says about one request: two independent uniform numbers."""

    randomness: int  # in [0, RANDOMNESS_END)
    offset: int  # in [0, 2**64): modulo the stride, the shift of the decode windows


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What is fixed for one taken request."""

    prompt_tokens: int
    offset: int  # of the decode windows, in [0, stride)
    stride: int
    window: int
    first_position: int  # nothing before it is taken
    decode_stop: int  # first position that the row cap excludes
    prompt_probability: float
    decode_probability: float


def draw(seed: int, request_id: str) -> Draw:
    """Return the same draw for the same seed and request, always and on every host."""
    digest = hashlib.blake2b(f"{seed}\x00{request_id}".encode(), digest_size=16, person=_PURPOSE).digest()
    return Draw(int.from_bytes(digest[:7]), int.from_bytes(digest[8:]))


def threshold(rate: float) -> int:
    """Return the rejection threshold of a rate: randomness at or above it is taken."""
    return RANDOMNESS_END - round(rate * RANDOMNESS_END)


def probability(rejection_threshold: int) -> float:
    """Return the exact probability that a threshold stands for."""
    return (RANDOMNESS_END - rejection_threshold) / RANDOMNESS_END


def choose(policy: CapturePolicy, drawn: Draw, prompt_tokens: int, request_probability: float) -> Choice:
    """Return what is taken of a request that is taken itself with ``request_probability``."""
    prompt_rows = min(policy.prompt_window, prompt_tokens)
    windows = (policy.max_rows_per_request - prompt_rows) // policy.window
    return Choice(
        prompt_tokens=prompt_tokens,
        offset=drawn.offset % policy.decode_stride,
        stride=policy.decode_stride,
        window=policy.window,
        first_position=max(policy.skip_first, prompt_tokens - prompt_rows),
        decode_stop=prompt_tokens + windows * policy.decode_stride,
        prompt_probability=request_probability,
        decode_probability=request_probability * policy.window / policy.decode_stride,
    )


def next_position(choice: Choice, position: int) -> int:
    """Return the first taken position at or after ``position``, NEVER when there is none."""
    if position < choice.first_position:  # noqa: PLR1730  # a call costs more, in every step
        position = choice.first_position
    if position < choice.prompt_tokens:
        return position
    into_stride = (position - choice.prompt_tokens - choice.offset) % choice.stride
    if into_stride >= choice.window:
        position += choice.stride - into_stride
    return position if position < choice.decode_stop else NEVER


def reason_of(choice: Choice, position: int) -> Reason:
    """Return why a taken position was taken."""
    return "prompt_end" if position < choice.prompt_tokens else "decode"


def probability_of(choice: Choice, position: int) -> float:
    """Return the inclusion probability of a taken position, over requests and offsets."""
    return choice.prompt_probability if position < choice.prompt_tokens else choice.decode_probability
