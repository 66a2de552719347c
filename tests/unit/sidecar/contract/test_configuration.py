"""One content has one digest, whoever tells it and however it is written."""

import hashlib
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.configuration import Kind, canonical, configuration, digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_the_digest_is_that_of_the_text_as_anybody_can_work_it_out() -> None:
    made = configuration(Kind.WORKER, {"b": [1, 0.1], "a": None})

    assert made.content == '{"a":null,"b":[1,0.1]}'
    assert made.digest == hashlib.sha256(made.content.encode()).hexdigest()


def test_numbers_that_are_not_finite_are_kept_as_text() -> None:
    assert json.loads(canonical({"a": math.nan, "b": -math.inf})) == {"a": "nan", "b": "-inf"}


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_reading_and_writing_a_content_once_more_changes_no_byte(content: dict[str, object]) -> None:
    written = canonical(content)

    assert canonical(json.loads(written)) == written
    assert digest(written) == digest(canonical(json.loads(written)))
