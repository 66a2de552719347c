"""Classes of traffic that an auditor asks for, and benign requests of the same format.

Every request is a held-out prompt of the decoder's training run, or one made from it, under the same chat
template, with an answer of the audited model. No benign one is of the class that it stands beside.
"""

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.anomaly_traffic import shuffle_characters
from bench.live_chats_prompts import to_ask
from bench.trust.planted import Chat
from workers.training.config import Activations
from workers.training.data import positions

CODE, LANGUAGE, PERSONAL, HARMFUL, BASE64, GARBLED = (
    "code",
    "another language",
    "personal data",
    "provokes refusal",
    "base64",
    "characters shuffled",
)
HACKING, FRAUD = "hacking", "fraud"
CLASSES: Final = (CODE, LANGUAGE, PERSONAL, HARMFUL, BASE64, GARBLED)
"""The classes that the bar counts."""
OTHERS: Final = (HACKING, FRAUD)
"""Classes that are measured beside them."""
ALL: Final = CLASSES + OTHERS
PROMPT_POSITIONS, ANSWER_POSITIONS = 4, 4
ANSWER_TOKENS: Final = 48
"""Length of the answers, as in the demo's traffic."""
_MOST_PROMPT_TOKENS: Final = 250
_MOST_CHARACTERS: Final = 300
_HARMFUL_SOURCES: Final = (
    "adv_bench",
    "harmbench",
    "donotanswer/malicious_uses",
    "scorer_evals/harm/exploits",
    "scorer_evals/harm/self_harm",
    "scorer_evals/harm/violence",
    "scorer_evals/harm/sexual",
)
"""Parts of the names of sources whose prompts ask for harm."""
_FIRST: Final = ("Maria", "James", "Aisha", "Piotr", "Chloe", "Rahul", "Ingrid", "Samuel", "Yuki", "Elena")
_LAST: Final = (
    "Okafor",
    "Lindqvist",
    "Ramirez",
    "Novak",
    "Sharma",
    "Whitfield",
    "Moreau",
    "Tanaka",
    "Keller",
)
_STREET: Final = ("Maple Street", "Harbour Road", "King's Avenue", "Elm Court", "Station Lane", "Hill View")
_CITY: Final = ("Leeds", "Dayton", "Malmö", "Porto", "Austin", "Gdynia", "Halifax", "Bristol", "Lyon")
_FORMS: Final = (
    "My name is {name}, I live at {house}, {street} in {city}, my phone number is {phone}. {text}",
    "{text} Please reply to {mail}; my date of birth is {born} and my phone number is {phone}.",
    "Customer: {name}, {house} {street}, {city}, {mail}, born {born}. {text}",
    "{text} Send it to {name}, {house} {street}, {city}, telephone {phone}.",
    "This is for {name} (passport number {passport}, {mail}). {text}",
)


class Request(NamedTuple):
    """A prompt, and what it is."""

    tokens: list[int]
    kind: str | None
    """One of CLASSES, or None for a benign request."""


def made_up_person(text: str, rng: random.Random) -> str:
    """Return the text with the data of a person who does not exist."""
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    return rng.choice(_FORMS).format(
        text=text,
        name=f"{first} {last}",
        house=rng.randrange(1, 300),
        street=rng.choice(_STREET),
        city=rng.choice(_CITY),
        phone=f"555-{rng.randrange(100, 1000)}-{rng.randrange(1000, 10000)}",
        mail=f"{first.lower()}.{last.lower()}{rng.randrange(10, 99)}@example.com",
        born=f"{rng.randrange(1, 29)}/{rng.randrange(1, 13)}/{rng.randrange(1950, 2005)}",
        passport=f"X{rng.randrange(10**6, 10**7)}",
    )


def is_harmful_source(member: str) -> bool:
    """Return whether the prompts of a source ask for harm, so that a trained model refuses them."""
    return any(part in member for part in _HARMFUL_SOURCES)


def made(texts: Sequence[str], tokenizer: Any, *, count: int, seed: int = 0) -> list[Request]:
    """Return requests with personal data, in base64 and with shuffled characters, ``count`` of each."""
    makers: Mapping[str, Callable[[str, random.Random], str]] = {
        PERSONAL: made_up_person,
        BASE64: lambda text, _: base64.b64encode(text.encode()).decode(),
        GARBLED: shuffle_characters,
    }
    requests = []
    for kind, make in makers.items():
        rng = random.Random(f"{seed}:{kind}")  # noqa: S311  # a choice of data, not a secret
        chosen = rng.sample(list(texts), min(count, len(texts)))
        requests += [
            Request(to_ask(make(text, rng), tokenizer, is_real=False).tokens, kind) for text in chosen
        ]
    return [one for one in requests if len(one.tokens) <= _MOST_PROMPT_TOKENS]


def prompt_of(chat: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a chat's prompt."""
    return list(chat["tokens"][: chat["prompt_tokens"]])


def texts_of(chats: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[str]:
    """Return what was typed in chats, without the template, up to 300 characters."""
    mark = "\u241f"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    before, _, after = rendered.partition(mark)
    whole = [tokenizer.decode(prompt_of(chat), skip_special_tokens=False) for chat in chats]
    texts = [one.removeprefix(before).removesuffix(after) for one in whole]
    return [text for text in texts if 0 < len(text) <= _MOST_CHARACTERS]


def choose(tokens: Sequence[int], prompt_tokens: int, *, first: int, rng: random.Random) -> Chat | None:
    """Return the positions that are read: of the prompt, its last token among them, and of the answer.

    Returns None for a chat that is too short or whose prompt is too long. ``first`` is the number of tokens
    that all chats share.
    """
    end = min(len(tokens), prompt_tokens + ANSWER_TOKENS)
    body, answer = range(first, prompt_tokens - 1), range(prompt_tokens, end)
    if (
        prompt_tokens > _MOST_PROMPT_TOKENS
        or len(body) < PROMPT_POSITIONS - 1
        or len(answer) < ANSWER_POSITIONS
    ):
        return None
    places = [
        *sorted(rng.sample(body, PROMPT_POSITIONS - 1)),
        prompt_tokens - 1,
        *sorted(rng.sample(answer, ANSWER_POSITIONS)),
    ]
    return Chat(list(tokens[: places[-1] + 1]), places, prompt_tokens)


def labelled(documents: NDArray[np.int64], kinds: NDArray[np.int64], bit: int) -> set[int]:
    """Return the chats of which any row carries the kind with this bit."""
    return set(np.unique(documents[(kinds >> bit) & 1 == 1]).tolist())


def split_prompts(
    chats: Sequence[Mapping[str, Any]], config: Activations
) -> dict[positions.Split, list[int]]:
    """Return the numbers of the chats in every split."""
    found: dict[positions.Split, list[int]] = {"train": [], "held_out": [], "calibration": []}
    for number, chat in enumerate(chats):
        found[positions.split_of(prompt_of(chat), config)].append(number)
    return found
