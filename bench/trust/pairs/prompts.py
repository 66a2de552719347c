"""Indirect-object items: two names, of which one gives and the other is given to. Pure.

"When Mary and John went to the store, John gave a drink to" continues with the indirect object, Mary; the
subject, John, is named twice (Wang et al. 2022, arXiv 2211.00593). Both names stand in the text, so a
reader of the text can guess: the items serve for paired tests only.
"""

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

NAMES: Final = (
    "Mary", "John", "Tom", "James", "Sarah", "Paul", "Anna", "David", "Laura", "Mark", "Emily", "Peter",
    "Lucy", "Simon", "Alice", "Robert", "Kate", "Daniel", "Emma", "Jack", "Rachel", "Michael", "Lisa",
)  # fmt: skip
_PLACES: Final = ("store", "park", "school", "office", "station", "museum", "library", "restaurant")
_OBJECTS: Final = (
    "a drink",
    "a book",
    "the key",
    "a letter",
    "the ticket",
    "a ring",
    "the bag",
    "some money",
)
_FORMS: Final = (
    "When {first} and {second} went to the {place}, {subject} gave {object} to",
    "After {first} and {second} had met at the {place}, {subject} handed {object} to",
    "While {first} and {second} were waiting at the {place}, {subject} passed {object} to",
    "Then {first} and {second} left the {place}, and {subject} offered {object} to",
)
_REQUEST: Final = "Tell me a story in one sentence."


class Item(NamedTuple):
    """A sentence that the model has begun as its answer, to be read at its last token."""

    indirect_object: str
    subject: str
    is_first: bool
    """Whether the indirect object is named before the subject."""
    sentence: str

    def names(self) -> tuple[str, str]:
        """Return the indirect object and the subject."""
        return self.indirect_object, self.subject


class Pair(NamedTuple):
    """An item, and the same with the two names exchanged."""

    original: Item
    swapped: Item


def make(names: Sequence[str], count: int, *, seed: int = 0) -> list[Pair]:
    """Return ``count`` pairs; the indirect object of half of the originals is named first."""
    rng = random.Random(seed)  # noqa: S311  # a choice of data, not a secret
    pairs = []
    for number in range(count):
        one, other = rng.sample(list(names), 2)
        form, place, thing = rng.choice(_FORMS), rng.choice(_PLACES), rng.choice(_OBJECTS)
        pairs.append(
            Pair(
                *(
                    _item(form, place, thing, indirect=indirect, subject=subject, is_first=number % 2 == 0)
                    for indirect, subject in ((one, other), (other, one))
                )
            )
        )
    return pairs


def _item(form: str, place: str, thing: str, *, indirect: str, subject: str, is_first: bool) -> Item:
    first, second = (indirect, subject) if is_first else (subject, indirect)
    sentence = form.format(first=first, second=second, place=place, subject=subject, object=thing)
    return Item(indirect, subject, is_first, sentence)


def single_tokens(names: Sequence[str], tokenizer: Any) -> dict[str, int]:
    """Return the names that are one token behind a space, with that token."""
    encoded = {name: tokenizer.encode(f" {name}", add_special_tokens=False) for name in names}
    return {name: tokens[0] for name, tokens in encoded.items() if len(tokens) == 1}


def tokens_of(item: Item, tokenizer: Any) -> list[int]:
    """Return the tokens of the request with the begun answer."""
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": _REQUEST}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer.encode(rendered + item.sentence, add_special_tokens=False))
