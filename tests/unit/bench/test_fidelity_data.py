from typing import Any

import numpy as np
import pytest

from bench.fidelity_data import SourceError, choose_rows, to_source
from bench.fidelity_read import permute_inside
from bench.fidelity_run import answer_of, check_chats, check_names, prefix_of
from tests.support.nla import toy
from workers.nla.checkpoint.labels import Names
from workers.training.data.labels import Kind, Taxonomy

CONTEXT = np.array([[1, 2, 3], [2, 3, 4], [7, 8, 9]])


def captured(**columns: Any) -> dict[str, Any]:
    """What a capture of live chats holds."""
    return {
        "vectors": np.eye(3, dtype=np.float16),
        "documents": np.array([0, 0, 1]),
        "context": CONTEXT,
        "next_tokens": np.array([4, 5, 6]),
        "phases": np.array([0, 1, 1], np.uint8),
        "tokens": np.array([3, 4, 9]),
        **columns,
    }


def test_a_capture_without_labels_is_read_as_far_as_it_goes() -> None:
    source = to_source(captured(), "live")

    assert not source.has_labels
    assert not source.has_positions
    assert source.samples.vectors.dtype == np.float32
    assert source.samples.next_tokens.tolist() == [[4], [5], [6]]
    assert source.vectors.given == ([3, 4, 9], ["prefill", "decode", "decode"])
    assert source.take(np.array([2])).samples.tokens.tolist() == [9]


def test_the_trainers_columns_are_read_as_they_are() -> None:
    columns = captured(
        is_answer=np.array([1, 0, 1]),
        next_tokens=np.array([[4, 1], [5, 1], [6, 1]]),
        positions=np.array([5, 6, 7]),
        areas=np.eye(3, 2, dtype=np.float32),
        **dict.fromkeys(("topic", "register", "kinds", "is_real"), np.arange(3)),
    )
    del columns["phases"], columns["tokens"]

    source = to_source(columns, "held_out")

    assert source.has_labels
    assert source.has_positions
    assert source.samples.next_tokens.shape == (3, 2)
    assert source.vectors.given.phases == ["decode", "prefill", "decode"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": np.array([3, 4, 8])}, "tokens: must be the last"),
        ({"documents": np.array([0, 0])}, "documents: must have 3 rows"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        to_source(captured(**columns), "live")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SourceError, match="live: context, next_tokens, phases: missing"):
        to_source({"vectors": np.eye(2), "documents": np.arange(2)}, "live")


def test_few_rows_of_many_documents_are_chosen() -> None:
    documents = np.repeat(np.arange(40), 10)

    rows = choose_rows(documents, limit=60, per_document=2)

    names, counts = np.unique(documents[rows], return_counts=True)
    assert len(rows) == 60
    assert (len(names), set(counts.tolist())) == (30, {2})
    assert rows.tolist() == sorted(rows.tolist())
    assert choose_rows(documents, limit=60, per_document=2).tolist() == rows.tolist()
    assert len(choose_rows(documents, limit=1000, per_document=3)) == 120


def test_positions_are_permuted_within_their_document_only() -> None:
    documents = np.array([5, 5, 5, 6, 7, 7])

    pairs = permute_inside(documents)

    assert sorted(pairs.rows.tolist()) == sorted(pairs.partners.tolist()) == [0, 1, 2, 4, 5]
    assert (pairs.rows != pairs.partners).all()
    assert (documents[pairs.rows] == documents[pairs.partners]).all()
    assert len(permute_inside(np.arange(3)).rows) == 0


CHATS = [{"prompt_tokens": 2, "tokens": [1, 2, 3, 4]}, {"prompt_tokens": 1, "tokens": [7, 8, 9]}]


def test_chats_give_prefixes_and_answers() -> None:
    assert prefix_of(CHATS, 0, 2) == [1, 2, 3]
    assert answer_of(CHATS[0]) == [3, 4]


def test_chats_of_another_run_are_refused() -> None:
    source = to_source(captured(positions=np.array([2, 3, 2])), "held_out")
    check_chats(source, CHATS)

    with pytest.raises(SourceError, match="document 1 does not hold token 9 at position 2, as row 2"):
        check_chats(source, CHATS[:1])
    with pytest.raises(SourceError, match="document 0 does not hold token 3"):
        check_chats(source, CHATS[::-1])
    with pytest.raises(SourceError, match="positions: missing"):
        check_chats(to_source(captured(), "live"), CHATS)


def test_a_taxonomy_of_other_labels_is_refused() -> None:
    names = Names.model_validate(toy.LABEL_NAMES)
    taxonomy = Taxonomy(
        version=1,
        topics=dict.fromkeys(names.topics, "words"),
        topic_floor=0.1,
        areas={"medicine": ("headaches",), "law": ("contracts", "law")},
        registers=(),
        kinds=tuple(Kind(name=name, pattern=name) for name in names.kinds),
    )
    check_names(names, taxonomy)

    with pytest.raises(SourceError, match="taxonomy: kinds"):
        check_names(names, taxonomy.model_copy(update={"kinds": taxonomy.kinds[::-1]}))
