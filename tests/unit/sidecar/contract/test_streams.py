"""The names of streams: whatever a model is called, its stream is its own and nobody's dead letters."""

import re
from fnmatch import fnmatchcase

from hypothesis import example, given
from hypothesis import strategies as st

from subtext_sidecar.contract import dead_letters, streams

MODELS = st.text(min_size=1, max_size=300)
LAYERS = st.integers(0, 200)


@given(MODELS, LAYERS)
@example("Qwen/Qwen2.5-7B-Instruct", 20)
@example("}:dead:worker:zero_vector{ \n*?[", 0)
@example("\ud800", 1)
def test_a_name_is_short_plain_and_found_by_its_pattern(model: str, layer: int) -> None:
    name = streams.activations_stream(model, layer)

    assert re.fullmatch(r"subtext:activations:\{[A-Za-z0-9_.~%-]+:\d+\}", name)
    assert len(name) < 256
    assert fnmatchcase(name, streams.ACTIVATIONS_PATTERN)
    assert not any(
        fnmatchcase(dead, streams.ACTIVATIONS_PATTERN) for *_, dead in dead_letters.streams_of(name)
    )


@given(st.tuples(MODELS, LAYERS), st.tuples(MODELS, LAYERS))
@example(("m" * 300, 1), ("m" * 299 + "n", 1))
@example(("m:1", 2), ("m", 12))
def test_two_models_or_layers_never_share_a_stream(one: tuple[str, int], other: tuple[str, int]) -> None:
    names = {streams.activations_stream(*kind) for kind in (one, other)}

    assert len(names) == len({one, other})


def test_a_name_can_be_read() -> None:
    assert streams.activations_stream("Qwen/Qwen2.5-7B", 20) == "subtext:activations:{Qwen%2FQwen2.5-7B:20}"
