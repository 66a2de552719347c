"""Decide which positions of which requests are taken, with exact inclusion probabilities. Pure.

A request is taken when a hash of (seed, request id) falls below ``request_rate``. Of a taken
request: the last ``prompt_window`` prompt tokens, and windows of ``window`` adjacent decode
positions every ``decode_stride``, shifted by an offset that the hash draws uniformly from
[0, decode_stride). Over the draw each decode position up to the horizon is therefore taken with
probability exactly window / decode_stride. The horizon keeps every request within
``max_rows_per_request`` whatever the offset, so that the cap does not disturb the probabilities:
past it a position is never taken. ``skip_first`` positions are never taken either.
"""

import hashlib
import sys
from typing import Final, Literal, NamedTuple

Reason = Literal["prompt_end", "decode"]

NEVER: Final = sys.maxsize


class Policy(NamedTuple):
    """The sampling part of the settings; see settings.CaptureSettings for ranges."""

    request_rate: float
    decode_stride: int
    window: int
    prompt_window: int
    skip_first: int
    max_rows_per_request: int
    seed: int


class Choice(NamedTuple):
    """What is fixed for one taken request."""

    prompt_tokens: int
    offset: int  # of the decode windows, in [0, stride)
    stride: int
    window: int
    first_position: int  # nothing before it is taken
    decode_stop: int  # first position that the row cap excludes
    prompt_probability: float
    decode_probability: float


def choose(policy: Policy, request_id: str, prompt_tokens: int) -> Choice | None:
    """Return the choice for this request, or None when the request is not taken."""
    digest = hashlib.blake2b(f"{policy.seed}\x00{request_id}".encode(), digest_size=16).digest()
    # 53 bits: what a float holds exactly, so that rate 1.0 takes all and 0.0 takes none.
    uniform = (int.from_bytes(digest[:8]) >> 11) / (1 << 53)
    if uniform >= policy.request_rate:
        return None
    prompt_rows = min(policy.prompt_window, prompt_tokens)
    windows = (policy.max_rows_per_request - prompt_rows) // policy.window
    return Choice(
        prompt_tokens=prompt_tokens,
        offset=int.from_bytes(digest[8:]) % policy.decode_stride,
        stride=policy.decode_stride,
        window=policy.window,
        first_position=max(policy.skip_first, prompt_tokens - prompt_rows),
        decode_stop=prompt_tokens + windows * policy.decode_stride,
        prompt_probability=policy.request_rate,
        decode_probability=policy.request_rate * policy.window / policy.decode_stride,
    )


def next_position(choice: Choice, position: int) -> int:
    """Return the first taken position at or after ``position``, NEVER when there is none."""
    position = max(position, choice.first_position)
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
