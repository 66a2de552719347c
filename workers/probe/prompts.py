"""Read the files of prompts that a probe is fitted on: a prompt a line, or lines of JSON with chats."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.judge.probes import ProbeError


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Chat(BaseModel):
    """A line of a file of chats; the audited model writes what comes next."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]

    @property
    def text(self) -> str:
        """What a classifier of the prompt alone would see."""
        return "\n".join(message.content for message in self.messages)

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The messages as a chat template takes them."""
        return [message.model_dump() for message in self.messages]


class Prompts(NamedTuple):
    """Prompts of both kinds, all distinct."""

    positive: Sequence[Chat]
    negative: Sequence[Chat]


def load_prompts(positive: Path, negative: Path) -> Prompts:
    """Read both files; ProbeError names file, line and fix, also for a prompt that is in both."""
    found = Prompts(_distinct(_read(positive)), _distinct(_read(negative)))
    both = {chat.text for chat in found.positive} & {chat.text for chat in found.negative}
    if both:
        raise ProbeError(
            f"{negative}: {len(both)} of its prompts are in {positive} too; take them out of one of both"
        )
    return found


def _distinct(chats: Sequence[Chat]) -> list[Chat]:
    """Return each prompt once: one that is both fitted on and held out would be measured as known."""
    return list({chat.text: chat for chat in chats}.values())


def _read(path: Path) -> list[Chat]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path}: cannot be read: {error}") from error
    chats = [_parse(f"{path}: line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not chats:
        raise ProbeError(f"{path}: holds no prompts; write one a line")
    return chats


def _parse(place: str, line: str) -> Chat:
    text = line.strip()
    if not text.startswith("{"):
        return Chat(messages=(Message(role="user", content=text),))
    try:
        chat = Chat.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "chat"
        raise ProbeError(f"{place}: {field}: {first['msg']}; correct it") from None
    except ValueError as error:
        raise ProbeError(f"{place}: is no JSON object ({error}); correct it") from None
    if chat.messages[-1].role == "assistant":
        raise ProbeError(
            f"{place}: messages: end with an answer; the audited model writes its own, remove it"
        )
    return chat
